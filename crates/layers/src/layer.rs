//! Layers as they come out of rendering: each an archive of a head, which many have in common, and
//! a tail.

use estive_archive::SharedBytes;
use estive_model::{Digest, DomainName};
use serde::{Deserialize, Serialize};

use crate::error::LayerError;
use crate::file_origin::FileOrigins;
use crate::renderer::Renderer;
use crate::request::RenderRequest;

/// A version of what layers look like: another one makes all layers anew.
pub const LAYER_FORMAT: u32 = 2;

/// A clone's layer as it travels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    pub clone: DomainName,
    /// The archive; only the used bytes.
    pub bytes: Vec<u8>,
    /// SHA-256 of the bytes.
    pub digest: Digest,
}

/// The layers of one request.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RenderedHerd {
    pub heads: Vec<LayerHead>,
    /// In the order of the request's `wanted`.
    pub layers: Vec<RenderedLayer>,
}

/// The first part of archives, and what they hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerHead {
    pub bytes: SharedBytes,
    /// Where every path of the whole layer comes from.
    pub origins: FileOrigins,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RenderedLayer {
    pub clone: DomainName,
    /// SHA-256 of head and tail.
    pub digest: Digest,
    /// Number of the head.
    pub head: usize,
    pub tail: SharedBytes,
}

impl RenderedHerd {
    /// A layer in one piece.
    pub fn layer(&self, rendered: &RenderedLayer) -> Option<Layer> {
        let head = self.heads.get(rendered.head)?;
        Some(Layer {
            clone: rendered.clone.clone(),
            bytes: [&head.bytes[..], &rendered.tail[..]].concat(),
            digest: rendered.digest.clone(),
        })
    }

    /// The layer of the clone of this name.
    pub fn layer_of(&self, clone: &str) -> Option<Layer> {
        let mut layers = self.layers.iter();
        self.layer(layers.find(|layer| layer.clone.as_str() == clone)?)
    }
}

/// Who renders: this process, or one that can do no harm.
pub trait Render {
    /// Renders the clones that the request wants.
    fn render(&self, request: &RenderRequest) -> Result<RenderedHerd, LayerError>;
}

/// Renders in this process.
#[derive(Debug, Clone, Copy, Default)]
pub struct RenderHere;

impl Render for RenderHere {
    fn render(&self, request: &RenderRequest) -> Result<RenderedHerd, LayerError> {
        Renderer::new(request)?.all()
    }
}
