//! Two boots held against each other, row by row.

use super::text::{Paper, TIME, cells, pad};
use super::{Scale, Titled, seconds, shown, took};
use crate::timeline::{Bar, Kind};
use serde::Serialize;
use std::fmt::Write as _;

/// A row of both boots: the bars of one name in the same place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    pub name: String,
    /// 0 for a bar of the first level.
    pub depth: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_ms: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub second_ms: Option<i64>,
    /// By how much the second took longer; none where one of the two is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by_ms: Option<i64>,
    #[serde(skip)]
    pub first: Option<Bar>,
    #[serde(skip)]
    pub second: Option<Bar>,
}

/// The rows of both, in the order of the first, what only the second has behind what it follows there. Of each bar's
/// parts those that are among the `slowest` of either.
pub fn differences(first: Titled<'_>, second: Titled<'_>, slowest: usize) -> Vec<Difference> {
    let mut found = Vec::new();
    // A clone's own init may be another one: it is the same row.
    let key = |bar: &Bar| match bar.kind {
        Kind::System | Kind::Whole => format!("{:?}", bar.kind),
        _ => bar.name.clone(),
    };
    add(
        &mut found,
        &first.timeline.bars,
        &second.timeline.bars,
        0,
        slowest,
        &key,
    );
    found
}

fn add(
    found: &mut Vec<Difference>,
    first: &[Bar],
    second: &[Bar],
    depth: usize,
    slowest: usize,
    key: &dyn Fn(&Bar) -> String,
) {
    for (a, b) in paired(first, second, key) {
        let (Some(named), parts) = (a.or(b), |bar: Option<&Bar>| {
            bar.map(|bar| bar.parts.clone()).unwrap_or_default()
        }) else {
            continue;
        };
        let name = match (a, b) {
            (Some(a), Some(b)) if a.name != b.name => format!("{} / {}", a.name, b.name),
            _ => named.name.clone(),
        };
        let took = |bar: Option<&Bar>| bar.and_then(Bar::took_ms);
        found.push(Difference {
            name,
            depth,
            first_ms: took(a),
            second_ms: took(b),
            by_ms: took(a)
                .zip(took(b))
                .map(|(a_ms, b_ms)| b_ms.saturating_sub(a_ms)),
            first: a.cloned(),
            second: b.cloned(),
        });
        let (mut a_parts, mut b_parts) = (parts(a), parts(b));
        let mut wanted: Vec<String> = Vec::new();
        for side in [&a_parts, &b_parts] {
            wanted.extend(
                shown(side, slowest)
                    .parts
                    .iter()
                    .map(|bar| bar.name.clone()),
            );
        }
        a_parts.retain(|bar| wanted.contains(&bar.name));
        b_parts.retain(|bar| wanted.contains(&bar.name));
        add(found, &a_parts, &b_parts, depth + 1, slowest, &|bar| {
            bar.name.clone()
        });
    }
}

/// Bars of the same key side by side, each once; the order is that of both as far as they agree.
fn paired<'a>(
    first: &'a [Bar],
    second: &'a [Bar],
    key: &dyn Fn(&Bar) -> String,
) -> Vec<(Option<&'a Bar>, Option<&'a Bar>)> {
    let mut rest: Vec<Option<&Bar>> = second.iter().map(Some).collect();
    let mut pairs = Vec::new();
    let mut taken = 0;
    for a in first {
        let at = rest
            .iter()
            .position(|b| b.is_some_and(|b| key(b) == key(a)));
        if let Some(at) = at {
            // What stands before its partner, and has none itself, comes first.
            for b in &mut rest[taken.min(at)..at] {
                let lonely = b.is_some_and(|b| first.iter().all(|a| key(a) != key(b)));
                if lonely {
                    pairs.push((None, b.take()));
                }
            }
            taken = taken.max(at + 1);
        }
        pairs.push((Some(a), at.and_then(|at| rest[at].take())));
    }
    pairs.extend(rest.into_iter().flatten().map(|b| (None, Some(b))));
    pairs
}

/// `+0.100 s`
pub(super) fn signed_seconds(ms: i64) -> String {
    match ms > 0 {
        true => format!("+{}", seconds(ms)),
        false => seconds(ms),
    }
}

const NAME_MAX: usize = 34;
const BARS_MIN: usize = 8;

/// Both in text, side by side on one scale.
pub fn draw(first: Titled<'_>, second: Titled<'_>, paper: &Paper) -> String {
    let rows = differences(first, second, paper.slowest);
    let indented = |row: &Difference| format!("{}{}", "  ".repeat(row.depth.min(8)), row.name);
    let widest = rows.iter().map(|row| indented(row).chars().count()).max();
    let room = paper.columns.saturating_sub(3 * TIME + 2 * (BARS_MIN + 1));
    let name = widest.unwrap_or(0).min(NAME_MAX).min(room).max(12);
    let left = paper.columns.saturating_sub(name + 3 * TIME + 2);
    let ranges = [first.timeline.range_ms(), second.timeline.range_ms()];
    let scale = Scale {
        from_ms: ranges[0].0.min(ranges[1].0),
        to_ms: ranges[0].1.max(ranges[1].1),
        places: (left / 2).max(BARS_MIN),
    };
    let mut text = format!("1: {}\n2: {}\n", first.title, second.title);
    let _ = writeln!(
        text,
        "{:name$}{:>TIME$}{:>TIME$}{:>TIME$} {}2",
        "",
        "1 TOOK",
        "2 TOOK",
        "DIFFERENCE",
        pad("1", scale.places + 1)
    );
    for row in &rows {
        let time = |bar: &Option<Bar>| bar.as_ref().map(took).unwrap_or_default();
        let drawn = |bar: &Option<Bar>| match bar {
            Some(bar) => cells(bar, &scale, paper.blocks),
            None => String::new(),
        };
        let line = format!(
            "{}{:>TIME$}{:>TIME$}{:>TIME$} {} {}",
            pad(&indented(row), name),
            time(&row.first),
            time(&row.second),
            row.by_ms.map(signed_seconds).unwrap_or_default(),
            pad(&drawn(&row.first), scale.places),
            drawn(&row.second)
        );
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}
