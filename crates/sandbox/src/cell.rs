//! The process that renders: it gives up everything first, and only then reads what it is to render.
//!
//! Templates are a small language without files or network, and their steps are counted; what cannot be counted there
//! is memory, and the time of one step. Here both are limited by the kernel, and a hole in what reads templates or
//! YAML opens on an empty root, without network, rights, or system calls but those for memory and three pipes.

use std::io::{BufWriter, Read as _, Write as _};
use std::os::fd::AsFd as _;

use estive_layers::{RenderRequest, RenderedHerd, Renderer};
use rustix::fs::{SeekFrom, seek};
use serde::{Deserialize, Serialize};

use crate::cage;
use crate::filter;
use crate::messages;
use crate::progress::{Progress, RECORD_BYTES};

/// What is written to standard output.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum CellAnswer {
    Done(RenderedHerd),
    /// Of a template, or a set.
    Failed(String),
    /// Nothing was rendered.
    Unmade(String),
}

/// Renders what standard input holds, and answers on standard output.
pub(crate) fn run(memory_bytes: u64, cpu_s: u64) -> std::io::Result<()> {
    let answer = match confined(memory_bytes, cpu_s) {
        Ok(bytes) => rendered(bytes),
        Err(what) => CellAnswer::Unmade(what),
    };
    let mut out = BufWriter::new(std::io::stdout().lock());
    rmp_serde::encode::write_named(&mut out, &answer).map_err(std::io::Error::other)?;
    out.flush()
}

/// The request's bytes, when there is no way back any more.
fn confined(memory_bytes: u64, cpu_s: u64) -> Result<Vec<u8>, String> {
    cage::limit_cell(memory_bytes, cpu_s)?;
    let mut stdin = std::io::stdin();
    let mut bytes = Vec::new();
    seek(stdin.as_fd(), SeekFrom::Start(RECORD_BYTES))
        .map_err(std::io::Error::from)
        .and_then(|_| stdin.read_to_end(&mut bytes))
        .map_err(|error| format!("the request could not be read: {error}"))?;
    cage::leave_everything()?;
    filter::apply_to_cell()?;
    Ok(bytes)
}

fn rendered(bytes: Vec<u8>) -> CellAnswer {
    let request: RenderRequest = match rmp_serde::from_slice(&bytes) {
        Ok(request) => request,
        Err(error) => {
            return CellAnswer::Unmade(format!("the request is not understood: {error}"));
        }
    };
    drop(bytes);
    let progress = Progress::new();
    let rendered = Renderer::watched(&request, &progress).and_then(|renderer| renderer.all_on(1));
    match rendered {
        Ok(herd) => CellAnswer::Done(herd),
        Err(error) => CellAnswer::Failed(messages::chain(&error)),
    }
}
