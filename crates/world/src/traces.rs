//! Recorded loads: what domains used over a time, and the world they would run in.
//!
//! PlanetLab's days (CoMoN, as CloudSim ships them) are directories of files, one a machine, a whole percentage of a processor
//! on each line, five minutes apart.

use crate::text::{Value, limits};
use crate::{Domain, Host, Reserved, Site, SiteIx, Used, World, WorldError};

/// Seconds between two values of a PlanetLab day.
const PLANETLAB_PERIOD_S: u32 = 300;
/// The most values of one file: a month of minutes.
const VALUES: usize = 50_000;

/// What some domains used over a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trace {
    /// Seconds from one value to the next.
    pub period_s: u32,
    /// A row a domain, ordered by name.
    pub rows: Vec<TraceRow>,
}

/// What one domain used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceRow {
    /// Its name.
    pub name: String,
    /// Share of what it may have of a processor, in per cent, one for each period.
    pub percent: Vec<u8>,
}

impl Trace {
    /// A day of PlanetLab from the names and texts of its files. They are put in order of their names, byte by byte: the
    /// order decides which domain is of which size.
    ///
    /// # Errors
    /// If a line is no whole number from 0 to 100, a file is empty, or two have one name.
    pub fn planetlab<'a>(
        files: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Self, WorldError> {
        let mut rows = Vec::new();
        for (name, text) in files {
            let here = |line, raw| Value {
                raw,
                line,
                column: 1,
            };
            if rows.len() == limits::DOMAINS || name.len() > limits::NAME_BYTES || name.is_empty() {
                let what = "too many files, or one whose name is empty or too long";
                return Err(here(1, "").fault(what, "take a smaller day"));
            }
            let mut percent = Vec::new();
            for (line, raw) in (1..).zip(text.lines()) {
                let value = here(line, raw.trim());
                let number = value.raw.parse().ok().filter(|number| *number <= 100);
                if percent.len() == VALUES {
                    let what = format!("{name}: more than {VALUES} values");
                    return Err(value.fault(what, "take a shorter time"));
                }
                percent.push(number.ok_or_else(|| {
                    value.fault(
                        format!("{name}: `{}` is no percentage", value.raw),
                        "write whole numbers from 0 to 100, one a line",
                    )
                })?);
            }
            if percent.is_empty() {
                return Err(here(1, "").fault(format!("{name}: no value"), "take the file out"));
            }
            rows.push(TraceRow {
                name: name.to_owned(),
                percent,
            });
        }
        rows.sort_by(|one, other| one.name.cmp(&other.name));
        for two in rows.windows(2) {
            if two[0].name == two[1].name {
                return Err(WorldError::Form {
                    what: format!("two files {}", two[0].name),
                    advice: "leave one out".to_owned(),
                });
            }
        }
        Ok(Self {
            period_s: PLANETLAB_PERIOD_S,
            rows,
        })
    }

    /// The world in which PlanetLab's days are compared (Beloglazov and Buyya's, in CloudSim): so many hosts, by turns of two
    /// kinds; domains of four sizes, a quarter each; nobody has a place yet. A common core does 1000 MIPS.
    pub fn planetlab_world(&self, hosts: usize) -> World {
        let mut world = World {
            window_s: self.period_s,
            ..World::default()
        };
        let mut site = Site::named("datacenter");
        site.rate_bytes_per_s = 125_000_000;
        world.sites.push(site);
        for at in 0..hosts {
            let mut host = Host::named(format!("host{at:03}"));
            host.site = SiteIx(0);
            host.capacity = Reserved([2, 4096, 1 << 20, 0]);
            let (milli, watts) = if at % 2 == 0 {
                (
                    1860,
                    [
                        86.0, 89.4, 92.6, 96.0, 99.5, 102.0, 106.0, 108.0, 112.0, 114.0, 117.0,
                    ],
                )
            } else {
                (
                    2660,
                    [
                        93.7, 97.0, 101.0, 105.0, 110.0, 116.0, 121.0, 125.0, 129.0, 133.0, 135.0,
                    ],
                )
            };
            host.core_speed_milli = milli;
            host.power.watts = watts.to_vec();
            host.speed = host.usual_speed(&world.sites);
            world.hosts.push(host);
        }
        // Processor, memory in MiB of each size: 2500 MIPS for the first quarter, and so on.
        let sizes = [(2500, 870), (2000, 1740), (1000, 1740), (500, 613)];
        let quarter = self.rows.len().div_ceil(4).max(1);
        for (at, row) in self.rows.iter().enumerate() {
            let mut domain = Domain::named(&*row.name);
            let (mips, memory_mib) = sizes[(at / quarter).min(3)];
            domain.reserved = Reserved([1, memory_mib, 0, 0]);
            domain.used = used(mips, row.percent.first().copied().unwrap_or(0));
            world.domains.push(domain);
        }
        world
    }
}

/// What a domain of so many MIPS uses at a percentage, in millionths of a common core.
fn used(mips: u64, percent: u8) -> Used {
    Used([mips * u64::from(percent) * 10, 0, 0, 0])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_is_ordered_by_name_and_gives_a_quarter_of_each_size() {
        let files = [
            ("b", "50\n0\n"),
            ("a", "100\n"),
            ("d", " 7\n"),
            ("c", "1\r\n2\r\n"),
        ];
        let trace = Trace::planetlab(files).unwrap();
        let names: Vec<&str> = trace.rows.iter().map(|row| &*row.name).collect();
        assert_eq!(names, ["a", "b", "c", "d"]);
        let world = trace.planetlab_world(3);
        assert_eq!(world.domains[0].used.0[0], 2_500_000);
        assert_eq!(world.domains[1].used.0[0], 1_000_000);
        assert_eq!(world.domains[3].reserved, Reserved([1, 613, 0, 0]));
        assert_eq!(world.hosts[1].core_speed_milli, 2660);
        assert_eq!(world.hosts[2].power.watts[10], 117.0);
        assert_eq!(World::from_text(&world.to_text()).unwrap(), world);
    }

    #[test]
    fn what_is_no_day_is_refused_by_file_and_line() {
        let fault = Trace::planetlab([("a", "1\n101\n")])
            .unwrap_err()
            .to_string();
        assert!(
            fault.starts_with("line 2, column 1: a: `101` is no percentage"),
            "{fault}"
        );
        assert!(Trace::planetlab([("a", "-1\n")]).is_err());
        assert!(Trace::planetlab([("a", "")]).is_err());
        assert!(Trace::planetlab([("a", "1"), ("a", "1")]).is_err());
    }
}
