//! Forms: the parts of layers that many clones have in common, with their digests.

use std::collections::HashMap;
use std::sync::Arc;

use estive_archive::LayerForm;
use estive_model::Digest;
use sha2::{Digest as _, Sha256};

use crate::file_origin::FileOrigins;
use crate::layer::LayerHead;
use crate::request::CloneFacts;
use crate::secrets::hex;

/// What is the same for all clones that have the same paths.
pub(crate) struct Form {
    pub archive: LayerForm,
    pub origins: FileOrigins,
    /// Having taken the head.
    pub digest: Sha256,
}

/// One clone's layer in its two parts.
pub(crate) struct Rendered<'a> {
    pub facts: &'a CloneFacts,
    pub form: Arc<Form>,
    pub tail: Vec<u8>,
}

impl Rendered<'_> {
    pub fn digest(&self) -> Digest {
        let hash = self.form.digest.clone().chain_update(&self.tail).finalize();
        let digest = format!("sha256:{}", hex(&hash));
        Digest::new(digest).expect("64 hex digits after sha256: are a digest")
    }
}

/// Forms that were met, each once.
#[derive(Default)]
pub(crate) struct Heads {
    by_form: HashMap<*const Form, usize>,
    by_digest: HashMap<Vec<u8>, Vec<usize>>,
    /// Kept, so that no other form comes to stand at the same address.
    forms: Vec<Arc<Form>>,
}

impl Heads {
    pub fn number(&mut self, form: &Arc<Form>, heads: &mut Vec<LayerHead>) -> usize {
        if let Some(number) = self.by_form.get(&Arc::as_ptr(form)) {
            return *number;
        }
        let digest = form.digest.clone().finalize().to_vec();
        let alike = self.by_digest.entry(digest).or_default();
        let known = alike
            .iter()
            .copied()
            .find(|number| heads[*number].origins == form.origins);
        let number = known.unwrap_or(heads.len());
        if known.is_none() {
            alike.push(number);
            heads.push(LayerHead {
                bytes: form.archive.head().clone(),
                origins: form.origins.clone(),
            });
        }
        self.by_form.insert(Arc::as_ptr(form), number);
        self.forms.push(Arc::clone(form));
        number
    }
}
