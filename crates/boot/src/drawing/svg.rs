//! A boot as a picture: SVG that needs nothing but itself, and runs nothing.

use super::compare::{Difference, signed_seconds};
use super::{
    Extent, Scale, Titled, What, colours, extent, folded_name, remark, rows, seconds, took,
};
use crate::timeline::Bar;
use std::fmt::Write as _;

/// Lengths in pixels.
const ROW: usize = 18;
const NAME: usize = 260;
const TIMES: usize = 90;
const BARS: usize = 720;
const MARGIN: usize = 12;
/// Title and axis.
const HEAD: usize = 52;
/// What is written with this many pixels a character never runs into the next column.
const CHARACTER: usize = 7;

/// One boot; `slowest`: parts of each bar that are shown.
pub fn draw(boot: Titled<'_>, slowest: usize) -> String {
    let rows = rows(boot.timeline, slowest);
    let (from_ms, to_ms) = boot.timeline.range_ms();
    let scale = Scale {
        from_ms,
        to_ms,
        places: BARS,
    };
    let left = MARGIN + NAME + TIMES + MARGIN;
    let notes = &boot.timeline.notes;
    let mut page = Page::new(
        left + BARS + MARGIN,
        HEAD + ROW * (rows.len() + notes.len() + 1),
    );
    page.words(MARGIN, 20, "title", boot.title, usize::MAX);
    page.axis(left, &scale, rows.len());
    for (number, row) in rows.iter().enumerate() {
        let y = HEAD + number * ROW;
        let indent = MARGIN + 12 * row.depth.min(8);
        let room = (NAME + MARGIN - indent) / CHARACTER;
        match row.what {
            What::Bar(bar) => {
                page.words(indent, y + 13, "name", &bar.name, room);
                page.time(MARGIN + NAME + TIMES, y + 13, &took(bar));
                page.bar(left, y, ROW, bar, &scale);
            }
            What::Folded { count, longest_ms } => {
                page.words(
                    indent,
                    y + 13,
                    "more",
                    &folded_name(count, longest_ms),
                    usize::MAX,
                );
            }
        }
    }
    for (number, note) in notes.iter().enumerate() {
        let y = HEAD + (rows.len() + number + 1) * ROW;
        page.words(MARGIN, y, "more", note, usize::MAX);
    }
    page.end()
}

/// Two boots, one above the other in each row, on one scale.
pub fn compare(first: Titled<'_>, second: Titled<'_>, differences: &[Difference]) -> String {
    let ranges = [first.timeline.range_ms(), second.timeline.range_ms()];
    let scale = Scale {
        from_ms: ranges[0].0.min(ranges[1].0),
        to_ms: ranges[0].1.max(ranges[1].1),
        places: BARS,
    };
    let row = 2 * ROW - 6;
    let left = MARGIN + NAME + TIMES + MARGIN;
    let height = HEAD + ROW + row * differences.len();
    let mut page = Page::new(left + BARS + MARGIN, height);
    page.words(MARGIN, 20, "title", first.title, usize::MAX);
    page.words(MARGIN, 38, "title", second.title, usize::MAX);
    page.axis(left, &scale, (row * differences.len()).div_ceil(ROW));
    for (number, difference) in differences.iter().enumerate() {
        let y = HEAD + number * row;
        let indent = MARGIN + 12 * difference.depth.min(8);
        page.words(
            indent,
            y + 13,
            "name",
            &difference.name,
            (NAME + MARGIN - indent) / CHARACTER,
        );
        let by = difference.by_ms.map(signed_seconds).unwrap_or_default();
        page.time(MARGIN + NAME + TIMES, y + 13, &by);
        for (index, bar) in [&difference.first, &difference.second]
            .into_iter()
            .enumerate()
        {
            if let Some(bar) = bar {
                page.bar(left, y + index * (row / 2), row / 2, bar, &scale);
            }
        }
    }
    page.end()
}

struct Page {
    text: String,
}

impl Page {
    fn new(width: usize, height: usize) -> Page {
        let text = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\">\n\
             <style>text{{font:12px sans-serif;fill:#212529}}.title{{font-weight:bold}}.more{{fill:#6c757d;font-style:italic}}\
             .time{{text-anchor:end;font-family:monospace}}.grid{{stroke:#dee2e6}}</style>\n\
             <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n"
        );
        Page { text }
    }

    fn end(mut self) -> String {
        self.text.push_str("</svg>\n");
        self.text
    }

    fn words(&mut self, x: usize, y: usize, class: &str, words: &str, room: usize) {
        let mut cut: String = words.chars().take(room).collect();
        if words.chars().nth(room).is_some() {
            cut.pop();
            cut.push('…');
        }
        let words = escaped(&cut);
        let _ = writeln!(
            self.text,
            "<text class=\"{class}\" x=\"{x}\" y=\"{y}\">{words}</text>"
        );
    }

    fn time(&mut self, x: usize, y: usize, time: &str) {
        if !time.is_empty() {
            self.words(x, y, "time", time, usize::MAX);
        }
    }

    /// Lines at round times, with their seconds.
    fn axis(&mut self, left: usize, scale: &Scale, rows: usize) {
        let length_ms = scale.to_ms.saturating_sub(scale.from_ms).max(1);
        let mut step_ms = 1_i64;
        while length_ms / step_ms > 10 {
            // 1, 2, 5, 10 …
            let first = step_ms.to_string().starts_with('2');
            step_ms = if first {
                step_ms / 2 * 5
            } else {
                step_ms.saturating_mul(2)
            };
        }
        let bottom = HEAD + rows * ROW;
        let first = scale.from_ms.div_euclid(step_ms).saturating_mul(step_ms);
        for number in 0..=12_i64 {
            let at_ms = first.saturating_add(number.saturating_mul(step_ms));
            if at_ms < scale.from_ms || at_ms > scale.to_ms {
                continue;
            }
            let x = left + scale.places(at_ms, at_ms).start;
            let _ = writeln!(
                self.text,
                "<line class=\"grid\" x1=\"{x}\" y1=\"{}\" x2=\"{x}\" y2=\"{bottom}\"/>",
                HEAD - 6
            );
            self.words(x, HEAD - 10, "more", &seconds(at_ms), usize::MAX);
        }
    }

    fn bar(&mut self, left: usize, y: usize, height: usize, bar: &Bar, scale: &Scale) {
        let remark = remark(bar);
        let colour = if bar.failed {
            "#d00000"
        } else {
            colours(bar.kind).1
        };
        let (top, thick) = (y + 3, height.saturating_sub(6).max(3));
        let (place, opacity) = match extent(bar) {
            Extent::Nothing => {
                if let Some(remark) = &remark {
                    self.words(left, y + 13, "more", remark, BARS / CHARACTER);
                }
                return;
            }
            Extent::Moment(at_ms) => (scale.places(at_ms, at_ms), "1"),
            Extent::Open(began_ms) => (scale.places(began_ms, scale.to_ms), "0.4"),
            Extent::Span(began_ms, ended_ms) => (scale.places(began_ms, ended_ms), "1"),
        };
        let began = bar
            .began_ms
            .or(bar.ended_ms)
            .map(seconds)
            .unwrap_or_default();
        let mut told = format!("{}: {began} + {}", bar.name, took(bar));
        if let Some(remark) = &remark {
            told += &format!(", {remark}");
        }
        let _ = writeln!(
            self.text,
            "<rect x=\"{}\" y=\"{top}\" width=\"{}\" height=\"{thick}\" rx=\"1\" fill=\"{colour}\" fill-opacity=\"{opacity}\"><title>{}</title></rect>",
            left + place.start,
            place.len(),
            escaped(&told)
        );
        if let Some(remark) = &remark
            && BARS.saturating_sub(place.end) > 20 * CHARACTER
        {
            let room = (BARS - place.end) / CHARACTER;
            self.words(left + place.end + 4, y + 13, "more", remark, room);
        }
    }
}

/// As character data of XML 1.0: markup escaped, and what XML has no character for left out.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&apos;"),
            '\u{fffe}' | '\u{ffff}' => {}
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out
}
