//! Results as text, one row for each policy.

use crate::tally::Outcome;

/// Columns right-aligned but the first, two blanks between.
pub fn aligned(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let wide: Vec<usize> = (0..columns)
        .map(|column| {
            let cells = rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        })
        .collect();
    let mut text = String::new();
    for row in rows {
        let cells: Vec<String> = row
            .iter()
            .zip(&wide)
            .enumerate()
            .map(|(column, (cell, &wide))| match column {
                0 => format!("{cell:<wide$}"),
                _ => format!("{cell:>wide$}"),
            })
            .collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

/// Replayed days.
pub fn of_outcomes(outcomes: &[(String, Outcome)]) -> String {
    let head = [
        "policy",
        "kWh",
        "moves",
        "boots",
        "SLATAH %",
        "PDM %",
        "ESV x10^-3",
        "short %",
        "hosts on",
    ];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for (name, outcome) in outcomes {
        rows.push(vec![
            name.clone(),
            format!("{:.2}", outcome.kwh),
            outcome.moves.to_string(),
            outcome.boots.to_string(),
            format!("{:.3}", outcome.slatah * 100.0),
            format!("{:.5}", outcome.pdm * 100.0),
            format!("{:.5}", outcome.esv() * 1000.0),
            format!("{:.4}", outcome.short * 100.0),
            format!("{:.1}", outcome.hosts_on),
        ]);
    }
    aligned(&rows)
}
