//! A drawing of what happened over time: one strip for each quantity, one above the other, as SVG that any browser shows.

use std::fmt::Write as _;

use crate::replay::Replayed;

/// One strip.
#[derive(Debug, Clone, PartialEq)]
pub struct Strip {
    /// What is drawn.
    pub name: String,
    /// In what.
    pub unit: &'static str,
    /// Seconds and values, in order; each value stands until the next.
    pub points: Vec<(f64, f64)>,
}

const WIDTH: f64 = 960.0;
const LEFT: f64 = 150.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 48.0;
const STRIP: f64 = 72.0;
const GAP: f64 = 22.0;
/// Times written below.
const MARKS: u32 = 8;

/// Draws strips below a title.
pub fn timeline(title: &str, strips: &[Strip]) -> String {
    let height = TOP + strips.len() as f64 * (STRIP + GAP) + 20.0;
    let all = || strips.iter().flat_map(|strip| strip.points.iter());
    let begin_s = all()
        .map(|point| point.0)
        .fold(f64::MAX, f64::min)
        .min(1e300);
    let end_s = all().map(|point| point.0).fold(f64::MIN, f64::max);
    let length_s = (end_s - begin_s).max(1.0);
    let across = |at_s: f64| LEFT + (at_s - begin_s) / length_s * (WIDTH - LEFT - RIGHT);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n<text x=\"{LEFT}\" y=\"26\" font-size=\"16\">{}</text>\n",
        escaped(title)
    );
    for (number, strip) in strips.iter().enumerate() {
        let top = TOP + number as f64 * (STRIP + GAP);
        let bottom = top + STRIP;
        let most = strip.points.iter().map(|point| point.1).fold(0.0, f64::max);
        let up = |value: f64| bottom - value / if most > 0.0 { most } else { 1.0 } * STRIP;
        let _ = write!(
            svg,
            "<text x=\"8\" y=\"{:.1}\">{}</text>\n<text x=\"8\" y=\"{:.1}\" fill=\"#777\">to {} {}</text>\n\
             <path d=\"M{LEFT} {bottom:.1}H{:.1}\" stroke=\"#bbb\"/>\n",
            top + 30.0,
            escaped(&strip.name),
            top + 46.0,
            short(most),
            strip.unit,
            WIDTH - RIGHT
        );
        let mut path = String::new();
        for (place, point) in strip.points.iter().enumerate() {
            let (x, y) = (across(point.0), up(point.1));
            let _ = match place {
                0 => write!(path, "M{x:.1} {y:.1}"),
                _ => write!(path, "H{x:.1}V{y:.1}"),
            };
        }
        let _ = writeln!(
            svg,
            "<path d=\"{path}\" fill=\"none\" stroke=\"#1f5a94\" stroke-width=\"1.3\"/>"
        );
    }
    for mark in 0..=MARKS {
        let at_s = begin_s + length_s * f64::from(mark) / f64::from(MARKS);
        let _ = writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.1}\" fill=\"#777\" text-anchor=\"middle\">{:.1} h</text>",
            across(at_s),
            height - 6.0,
            at_s / 3600.0
        );
    }
    svg.push_str("</svg>\n");
    svg
}

/// A replayed day.
pub fn of_replay(title: &str, replayed: &Replayed) -> String {
    let strip = |name: &str, unit, value: fn(&crate::TickRecord) -> f64| Strip {
        name: name.to_owned(),
        unit,
        points: replayed
            .ticks
            .iter()
            .map(|tick| (tick.time_s, value(tick)))
            .collect(),
    };
    let mut kilowatts = strip("power, mean", "kW", |tick| tick.kwh);
    for place in (1..kilowatts.points.len()).rev() {
        let (before, now) = (kilowatts.points[place - 1], kilowatts.points[place]);
        kilowatts.points[place].1 = (now.1 - before.1) * 3600.0 / (now.0 - before.0);
    }
    timeline(
        title,
        &[
            strip("asked", "MIPS", |tick| tick.asked_mips),
            strip("hosts on", "", |tick| tick.hosts_on as f64),
            kilowatts,
            strip("hosts short", "", |tick| tick.short as f64),
            strip("moves", "", |tick| tick.moves as f64),
            strip("guests", "", |tick| tick.guests as f64),
        ],
    )
}

fn short(value: f64) -> String {
    if value >= 100.0 {
        format!("{value:.0}")
    } else {
        format!("{value:.2}")
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_break_out_and_an_empty_strip_is_drawn() {
        let strip = Strip {
            name: "a<b&\"c\"".to_owned(),
            unit: "W",
            points: Vec::new(),
        };
        let svg = timeline("<script>", &[strip]);
        assert!(svg.contains("a&lt;b&amp;&quot;c&quot;") && !svg.contains("<script>"));
        assert!(!svg.contains("NaN") && !svg.contains("inf"));
    }

    #[test]
    fn a_value_stands_until_the_next() {
        let strip = Strip {
            name: "hosts".to_owned(),
            unit: "",
            points: vec![(0.0, 1.0), (10.0, 2.0)],
        };
        let svg = timeline("t", &[strip]);
        // From the left at half height to the right, then up.
        assert!(svg.contains("M150.0 84.0H940.0V48.0"), "{svg}");
    }
}
