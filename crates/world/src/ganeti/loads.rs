//! What instances use, by `hbal -U`: four shares a line, of a whole that the file does not name.

use std::collections::HashMap;

use super::Ganeti;
use crate::text::Value;
use crate::text::units::read_real;
use crate::{World, WorldError};

/// Bytes per second that a load of 1 of disk or network stands for.
pub(super) const WHOLE_RATE: u64 = 1_000_000_000;

impl Ganeti {
    /// The file of loads for `hbal -U`.
    pub fn loads(world: &World) -> String {
        use std::fmt::Write;
        let whole: [f64; 4] = std::array::from_fn(|kind| {
            let speed = world.hosts.iter().map(|host| host.speed.0[kind]).max();
            speed.filter(|speed| *speed > 0).unwrap_or(WHOLE_RATE) as f64
        });
        let mut text = String::new();
        for domain in &world.domains {
            text.push_str(&domain.name);
            for (used, whole) in domain.used.0.iter().zip(whole) {
                let _ = write!(text, " {:.9}", *used as f64 / whole);
            }
            text.push('\n');
        }
        text
    }
}

pub(super) fn read_loads(text: &str) -> Result<HashMap<&str, [f64; 4]>, WorldError> {
    let mut loads = HashMap::new();
    for (line, raw) in (1..).zip(text.lines()) {
        let whole_line = Value {
            raw,
            line,
            column: 1,
        };
        let mut words = raw.split_whitespace();
        let Some(name) = words.next() else {
            continue;
        };
        let mut load = [0.0; 4];
        for kind in &mut load {
            let raw = words.next().ok_or_else(|| {
                whole_line.fault(
                    "fewer than four loads",
                    "write NAME CPU MEMORY DISK NETWORK",
                )
            })?;
            *kind = read_real(&Value { raw, ..whole_line }, &[("", 0)], "0.25")?;
        }
        if words.next().is_some() {
            return Err(
                whole_line.fault("more than four loads", "write NAME CPU MEMORY DISK NETWORK")
            );
        }
        loads.insert(name, load);
    }
    Ok(loads)
}
