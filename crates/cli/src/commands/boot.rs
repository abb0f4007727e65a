//! `estive boot`: where the time of a clone's boot went, drawn; one boot, or two held against each other.

use crate::arguments::Global;
use crate::connection::{PATIENCE, Service, service};
use crate::failure::{Failure, chain};
use crate::output::{self, Output, table};
use clap::Args;
use estive_api::Client;
use estive_boot::boots::Boots;
use estive_boot::drawing::text::Paper;
use estive_boot::drawing::{SLOWEST, Titled, compare, svg, text};
use estive_boot::record::BootRecord;
use estive_boot::timeline::{Kind, Timeline};
use estive_model::DomainName;
use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::{Duration, UNIX_EPOCH};

#[derive(Debug, Args)]
pub struct Boot {
    /// The clone.
    clone: DomainName,
    /// Which boot, by its number; the last without it.
    #[arg(long, value_name = "NUMBER")]
    boot: Option<u64>,
    /// List the boots that are kept.
    #[arg(long, conflicts_with_all = ["compare", "svg", "boot"])]
    list: bool,
    /// Hold it against the last boot of another clone, against a boot of it by its number, or, of the same clone,
    /// against the boot before.
    #[arg(long, value_name = "CLONE[@NUMBER]")]
    compare: Option<Which>,
    /// Write it as a picture too; - prints the picture and nothing else.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Show every unit and step, not only the slowest.
    #[arg(long)]
    all: bool,
}

/// A boot of a clone.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Which {
    clone: DomainName,
    number: Option<u64>,
}

impl FromStr for Which {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (clone, number) = match text.split_once('@') {
            None => (text, None),
            Some((clone, number)) => {
                let parsed = number.parse();
                let parsed = parsed.map_err(|_| format!("{number:?} is no number of a boot"))?;
                (clone, Some(parsed))
            }
        };
        let clone = DomainName::new(clone).map_err(|error| error.to_string())?;
        Ok(Which { clone, number })
    }
}

/// A boot to be drawn.
struct Chosen {
    title: String,
    record: BootRecord,
    timeline: Timeline,
}

impl Chosen {
    fn new(clone: &DomainName, record: BootRecord) -> Self {
        let timeline = Timeline::of(&record);
        Self {
            title: title(clone, &record, &timeline),
            record,
            timeline,
        }
    }

    fn titled(&self) -> Titled<'_> {
        Titled {
            title: &self.title,
            timeline: &self.timeline,
        }
    }

    fn json(&self) -> serde_json::Value {
        serde_json::json!({ "title": self.title, "record": self.record, "timeline": self.timeline })
    }
}

impl Boot {
    pub async fn run(self, global: &Global) -> Result<u8, Failure> {
        let (Service::Manager(client) | Service::Agent(client)) = service(global)?;
        let boots = boots_of(&client, &self.clone).await?;
        if self.list {
            match global.output {
                Output::Json => output::json(&boots)?,
                Output::Table => output::print(&list(&boots))?,
            }
            return Ok(0);
        }
        let first = Chosen::new(&self.clone, choose(&self.clone, &boots, self.boot)?);
        let slowest = if self.all { usize::MAX } else { SLOWEST };
        let paper = Paper { slowest, ..paper() };
        let second = match &self.compare {
            None => None,
            Some(with) => Some(self.other(&client, with, &boots, &first).await?),
        };
        let (drawn, picture, json) = match &second {
            None => (
                text::draw(first.titled(), &paper),
                svg::draw(first.titled(), slowest),
                first.json(),
            ),
            Some(second) => {
                let (first_, second_) = (first.titled(), second.titled());
                let differences = compare::differences(first_, second_, slowest);
                let json = serde_json::json!({
                    "first": first.json(),
                    "second": second.json(),
                    "differences": differences,
                });
                (
                    compare::draw(first_, second_, &paper),
                    svg::compare(first_, second_, &differences),
                    json,
                )
            }
        };
        if let Some(file) = &self.svg {
            if file == Path::new("-") {
                output::print(&picture)?;
                return Ok(0);
            }
            std::fs::write(file, &picture).map_err(|error| {
                Failure::failed(format!(
                    "could not write {}: {}",
                    file.display(),
                    chain(&error)
                ))
            })?;
        }
        match global.output {
            Output::Json => output::json(&json)?,
            Output::Table => output::print(&drawn)?,
        }
        Ok(0)
    }

    /// What the first is held against.
    async fn other(
        &self,
        client: &Client,
        with: &Which,
        boots: &Boots,
        first: &Chosen,
    ) -> Result<Chosen, Failure> {
        let record = if with.clone != self.clone {
            choose(
                &with.clone,
                &boots_of(client, &with.clone).await?,
                with.number,
            )?
        } else if with.number.is_some() {
            choose(&with.clone, boots, with.number)?
        } else {
            let mut earlier = boots.0.iter().rev();
            let before = earlier.find(|boot| boot.number < first.record.number);
            before.cloned().ok_or_else(|| {
                Failure::impossible(format!(
                    "no boot of {} before boot {} is kept",
                    self.clone, first.record.number
                ))
                .advice(kept(&self.clone, boots))
            })?
        };
        Ok(Chosen::new(&with.clone, record))
    }
}

async fn boots_of(client: &Client, clone: &DomainName) -> Result<Boots, Failure> {
    let path = format!("/domain/{clone}/boots");
    let boots: Boots = client.get_json(&path, PATIENCE).await?;
    Ok(boots.cleaned())
}

fn choose(clone: &DomainName, boots: &Boots, number: Option<u64>) -> Result<BootRecord, Failure> {
    let found = match number {
        None => boots.last(),
        Some(number) => boots.by_number(number),
    };
    found.cloned().ok_or_else(|| {
        let which = number.map_or_else(
            || format!("no boot of {clone} is known"),
            |number| format!("boot {number} of {clone} is not kept"),
        );
        Failure::impossible(which).advice(kept(clone, boots))
    })
}

fn kept(clone: &DomainName, boots: &Boots) -> String {
    let numbers: Vec<String> = boots.0.iter().map(|boot| boot.number.to_string()).collect();
    match numbers.is_empty() {
        true => format!("estive start {clone}: its boot is kept from then on"),
        false => format!("{} are: estive boot {clone} --list", numbers.join(", ")),
    }
}

fn title(clone: &DomainName, record: &BootRecord, timeline: &Timeline) -> String {
    let host = match record.host.as_str() {
        "" => String::new(),
        host => format!(" on {host}"),
    };
    let time = timeline.zero_ms.map(|ms| format!(", {}", time(ms)));
    format!(
        "{clone}{host}, boot {}{}",
        record.number,
        time.unwrap_or_default()
    )
}

fn time(ms: u64) -> String {
    // Far beyond what the calendar of the formatter knows there is no time to be shown.
    let ms = ms.min(253_402_300_799_000);
    humantime::format_rfc3339_millis(UNIX_EPOCH + Duration::from_millis(ms)).to_string()
}

fn list(boots: &Boots) -> String {
    let rows: Vec<Vec<String>> = boots
        .0
        .iter()
        .map(|boot| {
            let timeline = Timeline::of(boot);
            let ended = |kind| {
                let bar = timeline.bar(kind).and_then(|bar| bar.ended_ms);
                output::seconds(bar.and_then(|ms| u64::try_from(ms).ok()))
            };
            let what = match (boot.failure(), boot.rebooted) {
                (Some((phase, error)), _) => format!("failed in phase {phase}: {error}"),
                (None, true) => "began again by itself".to_owned(),
                (None, false) => String::new(),
            };
            vec![
                boot.number.to_string(),
                timeline.zero_ms.map(time).unwrap_or_default(),
                boot.host.clone(),
                ended(Kind::EarlyUserspace),
                ended(Kind::System),
                ended(Kind::Whole),
                what,
            ]
        })
        .collect();
    table(
        &[
            "boot",
            "asked",
            "host",
            "switched",
            "system up",
            "answers",
            "",
        ],
        &rows,
    )
}

/// As wide as the terminal; plain where there is none.
fn paper() -> Paper {
    let stdout = std::io::stdout();
    if !stdout.is_terminal() {
        let columns = std::env::var("COLUMNS").ok();
        let columns = columns.and_then(|columns| columns.parse().ok());
        let plain = Paper::default();
        return Paper {
            columns: columns.unwrap_or(plain.columns).clamp(40, 1000),
            ..plain
        };
    }
    let columns = rustix::termios::tcgetwinsize(&stdout).map_or(0, |size| usize::from(size.ws_col));
    let is_set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"]
        .into_iter()
        .find_map(|name| std::env::var(name).ok().filter(|value| !value.is_empty()));
    let locale = locale.unwrap_or_default().to_uppercase();
    Paper {
        columns: if columns == 0 { 80 } else { columns.max(40) },
        blocks: locale.contains("UTF-8") || locale.contains("UTF8"),
        colour: !is_set("NO_COLOR") && std::env::var("TERM").is_ok_and(|term| term != "dumb"),
        slowest: SLOWEST,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use estive_boot::record::{ArrivedLine, HostSpan, HostWork};
    use estive_boot::report::{Line, Phase};

    fn boots() -> Boots {
        let mut boots = Boots::default();
        for asked_ms in [1_000_u64, 100_000] {
            let line = |ms: u64, line| ArrivedLine {
                arrived_ms: asked_ms + ms,
                within_ms: Some(20),
                line,
            };
            let done = |phase, uptime_ms| Line::Done { phase, uptime_ms };
            boots.begin(BootRecord {
                host: "host1".to_owned(),
                asked_ms: Some(asked_ms),
                host_spans: vec![HostSpan {
                    what: HostWork::Processors,
                    began_ms: asked_ms + 200,
                    ended_ms: asked_ms + 201,
                }],
                lines: vec![
                    line(1_500, done(Phase::Init, 1_000)),
                    line(2_000, done(Phase::Switch, 1_500)),
                ],
                ..BootRecord::default()
            });
        }
        boots
    }

    #[test]
    fn boots_are_listed_and_chosen_by_number() {
        assert_eq!(
            list(&boots()),
            "BOOT  ASKED                     HOST   SWITCHED  SYSTEM UP  ANSWERS\n\
             1     1970-01-01T00:00:01.000Z  host1  2.00 s    -          -\n\
             2     1970-01-01T00:01:40.000Z  host1  2.00 s    -          -\n"
        );
        let clone = DomainName::new("clone03").unwrap();
        assert_eq!(choose(&clone, &boots(), None).unwrap().number, 2);
        assert_eq!(choose(&clone, &boots(), Some(1)).unwrap().number, 1);
        let failure = choose(&clone, &boots(), Some(7)).unwrap_err();
        assert_eq!(failure.message, "boot 7 of clone03 is not kept");
        assert_eq!(
            failure.advice.unwrap(),
            "1, 2 are: estive boot clone03 --list"
        );
    }

    #[test]
    fn another_boot_is_named_by_clone_and_number() {
        let which = Which::from_str("clone04@3").unwrap();
        assert_eq!((which.clone.as_str(), which.number), ("clone04", Some(3)));
        assert_eq!(Which::from_str("clone04").unwrap().number, None);
        assert!(Which::from_str("clone04@last").is_err() && Which::from_str("@3").is_err());
    }
}
