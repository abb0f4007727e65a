//! Drawings as they are, and laws: XML that is well-formed and lines that stay on the paper, whatever a guest says.

use super::text::Paper;
use super::*;
use crate::record::{BootRecord, Unit};
use crate::report::Line;
use crate::timeline::tests::{records, whole};
use proptest::prelude::*;
use quick_xml::events::Event;

const TITLE: &str = "clone03 on host1, boot 2";

fn titled<'a>(title: &'a str, timeline: &'a Timeline) -> Titled<'a> {
    Titled { title, timeline }
}

/// The same clone, an hour later: another init, a slow unit, nobody who waited for it.
fn other() -> BootRecord {
    let mut record = whole();
    record.number = 3;
    record.answered = None;
    let system = record.system.as_mut().unwrap();
    system.init = "systemd 257".to_owned();
    system.units.retain(|unit| unit.name != "ssh.service");
    system.units.push(Unit {
        name: "man-db.service".to_owned(),
        began_ms: Some(3_100),
        ended_ms: Some(5_850),
        failed: false,
    });
    for line in &mut record.lines {
        line.arrived_ms += 150;
        if let Line::Done { uptime_ms, .. } = &mut line.line {
            *uptime_ms += 100;
        }
    }
    record.cleaned()
}

#[test]
fn a_boot_in_text() {
    let timeline = Timeline::of(&whole());
    insta::assert_snapshot!(
        "text",
        text::draw(titled(TITLE, &timeline), &Paper::default())
    );
    let paper = Paper {
        columns: 80,
        blocks: true,
        slowest: 3,
        ..Paper::default()
    };
    insta::assert_snapshot!("blocks", text::draw(titled(TITLE, &timeline), &paper));
    let colour = Paper {
        colour: true,
        ..paper
    };
    let drawn = text::draw(titled(TITLE, &timeline), &colour);
    assert!(drawn.contains("\u{1b}[33m"), "{drawn}");
}

#[test]
fn what_is_not_known_in_text() {
    let mut record = whole();
    record.lines.truncate(4);
    record.host_spans.clear();
    (record.answered, record.system) = (None, None);
    let timeline = Timeline::of(&record);
    insta::assert_snapshot!(
        "unknown",
        text::draw(titled(TITLE, &timeline), &Paper::default())
    );
}

#[test]
fn a_boot_as_a_picture() {
    let timeline = Timeline::of(&whole());
    let drawn = svg::draw(titled(TITLE, &timeline), 4);
    insta::assert_snapshot!("picture", drawn);
    well_formed(&drawn);
}

#[test]
fn two_boots_side_by_side() {
    let (first, second) = (Timeline::of(&whole()), Timeline::of(&other()));
    let (first, second) = (
        titled(TITLE, &first),
        titled("clone03 on host1, boot 3", &second),
    );
    let paper = Paper {
        columns: 110,
        slowest: 4,
        ..Paper::default()
    };
    insta::assert_snapshot!("compared", compare::draw(first, second, &paper));
    let differences = compare::differences(first, second, 4);
    let by = |name: &str| {
        let row = differences.iter().find(|row| row.name == name);
        row.unwrap_or_else(|| panic!("{name}: {differences:#?}"))
            .by_ms
    };
    assert_eq!(by("kernel"), Some(100));
    assert_eq!(by("agent"), Some(0));
    assert_eq!(by("man-db.service"), None);
    well_formed(&svg::compare(first, second, &differences));
}

/// Reads to the end; gives the names of the elements.
fn well_formed(text: &str) -> Vec<String> {
    let mut reader = quick_xml::Reader::from_str(text);
    reader.config_mut().check_end_names = true;
    let mut open: Vec<String> = Vec::new();
    let mut names = Vec::new();
    let name = |text: &str| text.to_owned();
    loop {
        match reader
            .read_event()
            .unwrap_or_else(|error| panic!("{error}: {text}"))
        {
            Event::Start(start) => {
                start
                    .attributes()
                    .for_each(|attribute| drop(attribute.unwrap()));
                open.push(name(start.name().as_ref()));
                names.push(name(start.name().as_ref()));
            }
            Event::Empty(empty) => {
                empty
                    .attributes()
                    .for_each(|attribute| drop(attribute.unwrap()));
                names.push(name(empty.name().as_ref()));
            }
            Event::End(_) => drop(open.pop()),
            Event::Text(text) => {
                let text: &str = text.as_ref();
                assert!(!text.contains('<') && text.chars().all(|c| c == '\n' || !c.is_control()));
            }
            Event::Eof => break,
            _ => {}
        }
    }
    assert!(open.is_empty(), "{open:?}");
    names
}

proptest! {
    #[test]
    fn hostile_names_break_neither_lines_nor_pages(first in records(), second in records(), columns in 0..200_usize, slowest in 0..40_usize, blocks in any::<bool>()) {
        let (first, second) = (Timeline::of(&first), Timeline::of(&second));
        let (first, second) = (titled("<a & 'b'>", &first), titled("\"c\"", &second));
        let paper = Paper { columns, blocks, colour: false, slowest };
        for drawn in [text::draw(first, &paper), compare::draw(first, second, &paper)] {
            prop_assert!(drawn.chars().all(|c| c == '\n' || !c.is_control()));
        }
        let rows = rows(first.timeline, slowest).len();
        prop_assert_eq!(
            text::draw(first, &paper).lines().count(),
            rows + 2 + first.timeline.notes.len()
        );
        let allowed = ["svg", "style", "rect", "text", "line", "title"];
        let differences = compare::differences(first, second, slowest);
        for drawn in [svg::draw(first, slowest), svg::compare(first, second, &differences)] {
            for name in well_formed(&drawn) {
                prop_assert!(allowed.contains(&name.as_str()), "{}", name);
            }
        }
    }

    #[test]
    fn a_boot_differs_from_itself_by_nothing(record in records()) {
        let timeline = Timeline::of(&record);
        let same = titled("same", &timeline);
        for row in compare::differences(same, same, usize::MAX) {
            prop_assert!(row.by_ms.is_none_or(|by_ms| by_ms == 0), "{:?}", row);
            prop_assert!(row.first.is_some() && row.second.is_some());
        }
    }
}
