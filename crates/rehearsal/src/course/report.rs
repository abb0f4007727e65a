//! Courses as a table and as a drawing.

use super::{Course, Period};
use crate::table::aligned;
use crate::timeline::{Strip, timeline};

/// Courses of the same world.
pub fn table(courses: &[Course]) -> String {
    let head = [
        "policy",
        "kWh",
        "cost",
        "hosts on",
        "overloaded %",
        "short %",
        "moves",
        "failed",
        "GiB moved",
        "standing still ms",
        "longest ms",
        "boots",
        "down s",
        "beside owner s",
        "between sites GiB",
        "refused",
        "foreseen",
        "its error %",
    ];
    let gib = |bytes: f64| format!("{:.2}", bytes / f64::from(1 << 30));
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for course in courses {
        let figures = &course.figures;
        rows.push(vec![
            course.policy.clone(),
            format!("{:.3}", figures.kwh),
            format!("{:.4}", figures.cost),
            format!("{:.1}", figures.hosts_on),
            format!("{:.3}", figures.overloaded * 100.0),
            format!("{:.4}", figures.short * 100.0),
            figures.moves.to_string(),
            figures.moves_failed.to_string(),
            gib(figures.moved_bytes as f64),
            format!("{:.0}", figures.downtime_ms),
            format!("{:.0}", figures.longest_downtime_ms),
            figures.boots.to_string(),
            format!("{:.0}", figures.down_s),
            format!("{:.0}", figures.beside_owner_s),
            gib(figures.crossed_bytes),
            figures.refused_steps.to_string(),
            course.foresight.map_or_else(
                || "-".to_owned(),
                |foresight| format!("{}/{}", foresight.used, foresight.looked_at),
            ),
            (course.foresight.and_then(|foresight| foresight.error()))
                .map_or_else(|| "-".to_owned(), |error| format!("{:.0}", error * 100.0)),
        ]);
    }
    aligned(&rows)
}

/// A world's course.
pub fn drawing(title: &str, course: &Course) -> String {
    let strip = |name: &str, unit, value: fn(&Period) -> f64| Strip {
        name: name.to_owned(),
        unit,
        points: course
            .periods
            .iter()
            .map(|period| (period.at_s, value(period)))
            .collect(),
    };
    timeline(
        title,
        &[
            strip("hosts on", "", |period| period.hosts_on as f64),
            strip("power", "kW", |period| period.watts / 1000.0),
            strip("hosts overloaded", "", |period| period.overloaded as f64),
            strip("moves under way", "", |period| period.moving as f64),
            strip("domains down", "", |period| period.down as f64),
        ],
    )
}
