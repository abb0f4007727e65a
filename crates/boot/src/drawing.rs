//! A boot drawn: rows with bars on one scale, in text ([`text`]) and as SVG ([`svg`]), alone or beside another
//! ([`compare`]). Pure.

pub mod compare;
pub mod svg;
pub mod text;

use crate::timeline::{Bar, Kind, Timeline};

/// Parts of one bar that are shown, where not all are asked for: its slowest.
pub const SLOWEST: usize = 10;

/// A boot and what it is called.
#[derive(Debug, Clone, Copy)]
pub struct Titled<'a> {
    pub title: &'a str,
    pub timeline: &'a Timeline,
}

/// One line of the drawing.
struct Row<'a> {
    depth: usize,
    what: What<'a>,
}

enum What<'a> {
    Bar(&'a Bar),
    /// So many more, none of which took longer.
    Folded {
        count: usize,
        longest_ms: i64,
    },
}

/// What is shown of the parts of a bar, in their order, and what is folded.
struct Shown<'a> {
    parts: Vec<&'a Bar>,
    folded: usize,
    longest_ms: i64,
}

fn shown(parts: &[Bar], slowest: usize) -> Shown<'_> {
    let mut order: Vec<usize> = (0..parts.len()).collect();
    // One that has failed, or is not over, is worth more than a slow one.
    order.sort_by_key(|index| std::cmp::Reverse(weight(&parts[*index])));
    let folded = order.split_off(slowest.min(order.len()));
    order.sort_unstable();
    Shown {
        parts: order.into_iter().map(|index| &parts[index]).collect(),
        longest_ms: folded
            .iter()
            .filter_map(|index| parts[*index].took_ms())
            .max()
            .unwrap_or(0),
        folded: folded.len(),
    }
}

fn weight(bar: &Bar) -> (bool, i64) {
    let is_open = bar.began_ms.is_some() && bar.ended_ms.is_none();
    (bar.failed || is_open, bar.took_ms().unwrap_or(0))
}

/// All rows of a boot; `slowest`: how many parts of each bar.
fn rows(timeline: &Timeline, slowest: usize) -> Vec<Row<'_>> {
    fn add<'a>(rows: &mut Vec<Row<'a>>, bar: &'a Bar, depth: usize, slowest: usize) {
        rows.push(Row {
            depth,
            what: What::Bar(bar),
        });
        let shown = shown(&bar.parts, slowest);
        for part in shown.parts {
            add(rows, part, depth + 1, slowest);
        }
        if shown.folded > 0 {
            rows.push(Row {
                depth: depth + 1,
                what: What::Folded {
                    count: shown.folded,
                    longest_ms: shown.longest_ms,
                },
            });
        }
    }
    let mut rows = Vec::new();
    for bar in &timeline.bars {
        add(&mut rows, bar, 0, slowest);
    }
    rows
}

fn folded_name(count: usize, longest_ms: i64) -> String {
    format!("{count} more, {} at most", seconds(longest_ms))
}

/// `1.234 s`, `-0.050 s`.
fn seconds(ms: i64) -> String {
    let sign = if ms < 0 { "-" } else { "" };
    let ms = ms.unsigned_abs();
    format!("{sign}{}.{:03} s", ms / 1000, ms % 1000)
}

/// How long a bar took: `~` where that is known roughly only, empty where it is not.
fn took(bar: &Bar) -> String {
    let about = if bar.about { "~" } else { "" };
    bar.took_ms()
        .map_or_else(String::new, |ms| format!("{about}{}", seconds(ms)))
}

/// What is to be said beside a bar.
fn remark(bar: &Bar) -> Option<String> {
    let is_unknown = bar.began_ms.is_none() && bar.ended_ms.is_none();
    match (&bar.why, bar.failed) {
        (Some(why), true) => Some(format!("failed: {why}")),
        (None, true) => Some("failed".to_owned()),
        (Some(why), false) if is_unknown => Some(format!("not known: {why}")),
        (Some(why), false) => Some(why.clone()),
        (None, false) => None,
    }
}

/// A scale from the first to the last moment, on so many places.
#[derive(Clone, Copy)]
struct Scale {
    from_ms: i64,
    to_ms: i64,
    places: usize,
}

impl Scale {
    /// The places from `began_ms` to `ended_ms`, at least one and none outside.
    fn places(&self, began_ms: i64, ended_ms: i64) -> std::ops::Range<usize> {
        let length = (i128::from(self.to_ms) - i128::from(self.from_ms)).max(1);
        let places = self.places as i128;
        let from = |ms: i64| i128::from(ms) - i128::from(self.from_ms);
        let start = (from(began_ms) * places / length).clamp(0, (places - 1).max(0));
        let end = ((from(ended_ms) * places + length - 1) / length).clamp(start + 1, places.max(1));
        start as usize..end.max(start + 1) as usize
    }
}

/// The ends of a bar as far as they are known: an end that is not stands for the scale's.
enum Extent {
    Nothing,
    Moment(i64),
    /// Not over at the end of the scale.
    Open(i64),
    Span(i64, i64),
}

fn extent(bar: &Bar) -> Extent {
    match (bar.began_ms, bar.ended_ms) {
        (None, None) => Extent::Nothing,
        (None, Some(at_ms)) => Extent::Moment(at_ms),
        (Some(began_ms), None) => Extent::Open(began_ms),
        (Some(began_ms), Some(ended_ms)) => Extent::Span(began_ms, ended_ms),
    }
}

/// Colours of a kind: of terminals (SGR) and of a page.
fn colours(kind: Kind) -> (u8, &'static str) {
    match kind {
        Kind::Manager => (90, "#8d99ae"),
        Kind::Agent => (34, "#457b9d"),
        Kind::Emulator => (36, "#2a9d8f"),
        Kind::Firmware => (90, "#adb5bd"),
        Kind::Kernel => (33, "#e9c46a"),
        Kind::EarlyUserspace => (32, "#6a994e"),
        Kind::System => (35, "#9d4edd"),
        Kind::Whole => (37, "#343a40"),
    }
}

#[cfg(test)]
mod tests;
