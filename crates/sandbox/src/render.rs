//! Rendering in processes that can do no harm: a herd is one request, cut into as many parts as there are cores when
//! it is large.

use std::collections::HashMap;
use std::os::unix::process::ExitStatusExt as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use estive_layers::{LayerError, LayerHead, Render, RenderRequest, RenderedHerd};

use crate::asked::{Asked, Go, written};
use crate::cell::CellAnswer;
use crate::command::RENDER;
use crate::error::SandboxError;
use crate::limits::shown_bytes;
use crate::messages;
use crate::progress::{At, RECORD_BYTES};
use crate::watch::now_ms;
use crate::worker::Worker;

const LOOK_MS: u32 = 250;

/// Below this many clones a second process costs more than it brings.
const MIN_PART: usize = 256;
/// What one process holds of clones and of what scripts made for them.
const MAX_PART: usize = 2500;
const MAX_PART_BYTES: usize = 64 << 20;

const MAX_ANSWER_BYTES: usize = 1 << 30;

/// For messages.
const DOING: &str = "rendering";

impl Render for Worker {
    fn render(&self, request: &RenderRequest) -> Result<RenderedHerd, LayerError> {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let parts = parts(request, cores);
        if let [_] = parts.as_slice() {
            return self.render_part(request);
        }
        let done: Vec<Mutex<Option<Result<RenderedHerd, LayerError>>>> =
            parts.iter().map(|_| Mutex::new(None)).collect();
        let next = AtomicUsize::new(0);
        let work = || {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                let (Some(part), Some(place)) = (parts.get(number), done.get(number)) else {
                    return;
                };
                let rendered = self.render_part(&part_of(request, part));
                if rendered.is_err() {
                    // No use in the others.
                    next.store(parts.len(), Ordering::Relaxed);
                }
                if let Ok(mut place) = place.lock() {
                    *place = Some(rendered);
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..cores.min(parts.len()) {
                scope.spawn(work);
            }
        });
        let mut herd = Joined::default();
        for place in done {
            match place.into_inner().ok().flatten() {
                Some(part) => herd.add(part?),
                // An error of a later part follows.
                None => continue,
            }
        }
        Ok(herd.herd)
    }
}

/// Numbers of the clones that each process renders.
fn parts(request: &RenderRequest, cores: usize) -> Vec<Vec<usize>> {
    let mut bytes_of: HashMap<&str, usize> = HashMap::new();
    for output in &request.outputs {
        let bytes: usize = output
            .tree
            .iter()
            .map(|(path, node)| path.len() + node.size_bytes())
            .sum();
        *bytes_of.entry(output.clone.as_str()).or_default() += bytes;
    }
    let share = request.wanted.len().div_ceil(cores.max(1));
    let most = share.clamp(MIN_PART, MAX_PART);
    let mut parts = vec![Vec::new()];
    let mut bytes = 0;
    for number in &request.wanted {
        let own = request
            .clones
            .get(*number)
            .and_then(|clone| bytes_of.get(clone.name.as_str()))
            .copied()
            .unwrap_or_default();
        let full = parts
            .last()
            .is_none_or(|part: &Vec<usize>| part.len() >= most);
        if full || (bytes > 0 && bytes + own > MAX_PART_BYTES) {
            parts.push(Vec::new());
            bytes = 0;
        }
        bytes += own;
        if let Some(part) = parts.last_mut() {
            part.push(*number);
        }
    }
    parts
}

fn part_of(request: &RenderRequest, part: &[usize]) -> RenderRequest {
    let names: std::collections::HashSet<&str> = part
        .iter()
        .filter_map(|number| Some(request.clones.get(*number)?.name.as_str()))
        .collect();
    RenderRequest {
        wanted: part.to_vec(),
        outputs: request
            .outputs
            .iter()
            .filter(|output| names.contains(output.clone.as_str()))
            .cloned()
            .collect(),
        ..request.without_outputs()
    }
}

/// Parts put together; what they have in common is kept once.
#[derive(Default)]
struct Joined {
    herd: RenderedHerd,
    /// Numbers of heads with these bytes.
    known: HashMap<Vec<u8>, Vec<usize>>,
}

impl Joined {
    fn add(&mut self, part: RenderedHerd) {
        let numbers: Vec<usize> = part
            .heads
            .into_iter()
            .map(|head| self.number(head))
            .collect();
        for mut layer in part.layers {
            // A number that is none stays none.
            layer.head = numbers.get(layer.head).copied().unwrap_or(usize::MAX);
            self.herd.layers.push(layer);
        }
    }

    fn number(&mut self, head: LayerHead) -> usize {
        let alike = self.known.entry(head.bytes.to_vec()).or_default();
        let heads = &mut self.herd.heads;
        if let Some(known) = alike
            .iter()
            .find(|number| heads[**number].origins == head.origins)
        {
            return *known;
        }
        alike.push(heads.len());
        heads.push(head);
        heads.len() - 1
    }
}

impl Worker {
    fn render_part(&self, request: &RenderRequest) -> Result<RenderedHerd, LayerError> {
        let elsewhere = |what: String| LayerError::Elsewhere { what };
        let start = |source| {
            elsewhere(messages::chain(&SandboxError::Start {
                doing: DOING.to_owned(),
                program: self.program.clone(),
                source,
            }))
        };
        let file = written(request, RECORD_BYTES).map_err(start)?;
        let record = file.try_clone().map_err(start)?;
        let limits = &self.render_limits;
        let words = [limits.memory_bytes.to_string(), limits.cpu_s.to_string()];
        let asked = Asked::start(&self.program, RENDER, &words, file).map_err(start)?;
        let mut stalled = None;
        let mut last = (At::default(), now_ms());
        let watch = || {
            let at = At::read(&record).unwrap_or_default();
            if at.number != last.0.number || at.what.is_none() {
                last = (at, now_ms());
            } else if now_ms() - last.1 >= limits.template_ms {
                stalled = at.what;
                return Go::Kill;
            }
            Go::On
        };
        let answered = asked
            .answer(MAX_ANSWER_BYTES, LOOK_MS, watch)
            .map_err(start)?;
        if answered.status.success() {
            return match rmp_serde::from_slice(&answered.bytes) {
                Ok(CellAnswer::Done(herd)) => Ok(herd),
                Ok(CellAnswer::Failed(what)) => Err(elsewhere(what)),
                Ok(CellAnswer::Unmade(what)) => {
                    let doing = DOING.to_owned();
                    Err(elsewhere(SandboxError::Unmade { doing, what }.to_string()))
                }
                Err(error) => Err(elsewhere(format!(
                    "{DOING}: the answer is not understood: {error}"
                ))),
            };
        }
        let at = At::read(&record).ok().and_then(|at| at.what);
        let whose = stalled
            .clone()
            .or(at)
            .unwrap_or_else(|| "the herd".to_owned());
        let signal = answered.status.signal();
        Err(elsewhere(if stalled.is_some() {
            format!(
                "{DOING} {whose} did not end within {} ms",
                limits.template_ms
            )
        } else if signal == Some(libc::SIGXCPU) {
            format!(
                "{DOING} {whose} used more than {} s of processor time",
                limits.cpu_s
            )
        } else if signal == Some(libc::SIGABRT) && answered.words.contains("memory allocation of") {
            let most = shown_bytes(limits.memory_bytes);
            format!("{DOING} {whose} passed its memory limit of {most}")
        } else {
            SandboxError::NoAnswer {
                doing: format!("{DOING} {whose}"),
                status: answered.status.to_string(),
                words: answered.words,
            }
            .to_string()
        }))
    }
}
