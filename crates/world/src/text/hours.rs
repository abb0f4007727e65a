//! An owner's hours as people write them: `mon-fri/8-18,sat/9-12`.

use std::collections::BTreeSet;

use super::Value;
use crate::{OwnerHours, WorldError};

const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
const EXAMPLE: &str =
    "write it like mon-fri/8-18,sat/9-12 (from 8:00 until 18:00 UTC), all/0-24 or never";

/// Reads the hours of a week.
///
/// # Errors
/// If a day or an hour is none.
pub fn read(value: &Value<'_>) -> Result<OwnerHours, WorldError> {
    let mut hours = BTreeSet::new();
    if value.raw == "never" {
        return Ok(OwnerHours { hours });
    }
    for part in value.list()? {
        let wrong = || part.fault(format!("`{}` are no hours", part.raw), EXAMPLE);
        let (days, span) = part.raw.split_once('/').ok_or_else(wrong)?;
        let day = |name: &str| DAYS.iter().position(|day| *day == name);
        let (first, last) = match days.split_once('-') {
            _ if days == "all" => (0, 6),
            Some((first, last)) => (day(first).ok_or_else(wrong)?, day(last).ok_or_else(wrong)?),
            None => {
                let day = day(days).ok_or_else(wrong)?;
                (day, day)
            }
        };
        let (from, until) = span.split_once('-').ok_or_else(wrong)?;
        let hour = |text: &str| {
            let is_number =
                (1..=2).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
            is_number.then(|| text.parse::<u8>().ok()).flatten()
        };
        let (from, until) = (
            hour(from).ok_or_else(wrong)?,
            hour(until).ok_or_else(wrong)?,
        );
        if first > last || from >= until || until > 24 {
            return Err(wrong());
        }
        for day in first..=last {
            let midnight = u8::try_from(day * 24).unwrap_or(0);
            hours.extend(midnight + from..midnight + until);
        }
    }
    Ok(OwnerHours { hours })
}

/// Writes them, days with the same hours together.
pub fn write(owner: &OwnerHours) -> String {
    let spans: Vec<Vec<(u8, u8)>> = (0..7u8).map(|day| spans(owner, day)).collect();
    let mut parts = Vec::new();
    let mut day = 0;
    while day < 7 {
        let mut last = day;
        while last + 1 < 7 && spans[last + 1] == spans[day] {
            last += 1;
        }
        let days = match (day, last) {
            (0, 6) => "all".to_owned(),
            (first, last) if first == last => DAYS[first].to_owned(),
            (first, last) => format!("{}-{}", DAYS[first], DAYS[last]),
        };
        for (from, until) in &spans[day] {
            parts.push(format!("{days}/{from}-{until}"));
        }
        day = last + 1;
    }
    if parts.is_empty() {
        return "never".to_owned();
    }
    parts.join(",")
}

fn spans(owner: &OwnerHours, day: u8) -> Vec<(u8, u8)> {
    let mut spans: Vec<(u8, u8)> = Vec::new();
    for hour in (0..24).filter(|hour| owner.hours.contains(&(day * 24 + hour))) {
        match spans.last_mut() {
            Some((_, until)) if *until == hour => *until += 1,
            _ => spans.push((hour, hour + 1)),
        }
    }
    spans
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn value(raw: &str) -> Value<'_> {
        Value {
            raw,
            line: 1,
            column: 1,
        }
    }

    #[test]
    fn working_hours_are_read_as_they_are_written() {
        let text = "mon-fri/8-12,mon-fri/13-18,sat/9-12";
        let owner = read(&value(text)).unwrap();
        assert_eq!(owner.hours.len(), 5 * 9 + 3);
        assert!(owner.hours.contains(&8) && !owner.hours.contains(&12));
        assert_eq!(write(&owner), text);
        assert_eq!(write(&read(&value("never")).unwrap()), "never");
    }

    #[test]
    fn what_are_no_hours_is_refused() {
        for text in [
            "mon",
            "mon/8",
            "mon/18-8",
            "fri-mon/1-2",
            "day/1-2",
            "mon/0-25",
            "mon/+1-2",
            "mon/1-2,",
        ] {
            assert!(read(&value(text)).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn every_week_comes_back(hours in proptest::collection::btree_set(0u8..168, 0..100)) {
            let owner = OwnerHours { hours };
            prop_assert_eq!(read(&value(&write(&owner))).unwrap(), owner);
        }
    }
}
