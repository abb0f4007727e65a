//! A boot as lines of text.

use super::{
    Extent, Row, SLOWEST, Scale, Titled, What, colours, extent, folded_name, remark, rows, seconds,
    took,
};
use crate::timeline::Bar;
use std::fmt::Write as _;

/// What is drawn on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Paper {
    /// Characters of a line.
    pub columns: usize,
    /// Blocks for bars; else what every terminal and file has.
    pub blocks: bool,
    pub colour: bool,
    /// Parts of each bar that are shown.
    pub slowest: usize,
}

impl Default for Paper {
    fn default() -> Self {
        Self {
            columns: 100,
            blocks: false,
            colour: false,
            slowest: SLOWEST,
        }
    }
}

const NAME_MIN: usize = 12;
const NAME_MAX: usize = 40;
/// A time with the space before it.
pub(super) const TIME: usize = 12;
const BARS_MIN: usize = 10;

/// One boot, a bar a line.
pub fn draw(boot: Titled<'_>, paper: &Paper) -> String {
    let rows = rows(boot.timeline, paper.slowest);
    let name = name_width(&rows, paper.columns.saturating_sub(2 * TIME + 1 + BARS_MIN));
    let (from_ms, to_ms) = boot.timeline.range_ms();
    let scale = Scale {
        from_ms,
        to_ms,
        places: paper
            .columns
            .saturating_sub(name + 2 * TIME + 1)
            .max(BARS_MIN),
    };
    let mut text = format!("{}\n", boot.title);
    let _ = writeln!(
        text,
        "{:name$}{:>TIME$}{:>TIME$} {}",
        "",
        "BEGAN",
        "TOOK",
        axis(&scale)
    );
    for row in &rows {
        let mut line = pad(&indented(row), name);
        if let What::Bar(bar) = row.what {
            let began = bar
                .began_ms
                .or(bar.ended_ms)
                .map(seconds)
                .unwrap_or_default();
            let _ = write!(line, "{began:>TIME$}{:>TIME$} ", took(bar));
            line += &bar_and_remark(bar, &scale, paper);
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    for note in &boot.timeline.notes {
        let _ = writeln!(text, "note: {note}");
    }
    text
}

/// As wide as the widest name, within what is left for it.
fn name_width(rows: &[Row<'_>], room: usize) -> usize {
    let widest = rows.iter().map(|row| indented(row).chars().count()).max();
    widest
        .unwrap_or(0)
        .clamp(NAME_MIN, NAME_MAX)
        .min(room.max(NAME_MIN))
}

fn indented(row: &Row<'_>) -> String {
    let indent = "  ".repeat(row.depth.min(8));
    match row.what {
        What::Bar(bar) => format!("{indent}{}", bar.name),
        What::Folded { count, longest_ms } => {
            format!("{indent}({})", folded_name(count, longest_ms))
        }
    }
}

/// Filled up to, or cut at, a width.
pub(super) fn pad(text: &str, width: usize) -> String {
    let count = text.chars().count();
    if count <= width {
        return format!("{text}{}", " ".repeat(width - count));
    }
    let mut cut: String = text.chars().take(width.saturating_sub(1)).collect();
    cut.push('~');
    cut
}

/// The first and the last moment, at their places.
fn axis(scale: &Scale) -> String {
    let (from, to) = (seconds(scale.from_ms), seconds(scale.to_ms));
    let room = scale.places.saturating_sub(from.len());
    format!("{from}{to:>room$}")
}

fn bar_and_remark(bar: &Bar, scale: &Scale, paper: &Paper) -> String {
    let drawn = cells(bar, scale, paper.blocks);
    let mut text = match paper.colour && !drawn.trim().is_empty() {
        true => {
            let colour = if bar.failed { 31 } else { colours(bar.kind).0 };
            format!("\u{1b}[{colour}m{drawn}\u{1b}[0m")
        }
        false => drawn.clone(),
    };
    if let Some(remark) = remark(bar) {
        let used = drawn.chars().count();
        let (gap, room) = match used {
            0 => ("", scale.places),
            _ => (" ", scale.places.saturating_sub(used + 1)),
        };
        // Where a bar leaves no room, its line is longer: what failed is worth that.
        let room = if bar.failed { usize::MAX } else { room };
        let cut: String = remark.chars().take(room).collect();
        text += &format!("{gap}{cut}");
    }
    text
}

/// A bar on its scale, without anything behind it.
pub(super) fn cells(bar: &Bar, scale: &Scale, blocks: bool) -> String {
    let before = |place: usize| " ".repeat(place);
    match extent(bar) {
        Extent::Nothing => String::new(),
        Extent::Moment(at_ms) => {
            let mark = if blocks { "◆" } else { "+" };
            before(scale.places(at_ms, at_ms).start) + mark
        }
        Extent::Open(began_ms) => {
            let place = scale.places(began_ms, scale.to_ms);
            let mark = if blocks { "░" } else { "." };
            before(place.start) + &mark.repeat(place.len())
        }
        Extent::Span(began_ms, ended_ms) if !blocks => {
            let place = scale.places(began_ms, ended_ms);
            before(place.start) + &"#".repeat(place.len())
        }
        Extent::Span(began_ms, ended_ms) => {
            // Two halves in each cell.
            let halves = Scale {
                places: 2 * scale.places,
                ..*scale
            };
            let place = halves.places(began_ms, ended_ms);
            let mut drawn = before(place.start / 2);
            for cell in place.start / 2..place.end.div_ceil(2) {
                let (left, right) = (place.contains(&(2 * cell)), place.contains(&(2 * cell + 1)));
                drawn.push(match (left, right) {
                    (true, true) => '█',
                    (true, false) => '▌',
                    _ => '▐',
                });
            }
            drawn
        }
    }
}
