//! Amounts as people write them: `4c`, `2G`, `100MB/s`, `5m`. Exact: what is not a whole number of the unit kept is refused.

use super::Value;
use super::limits;
use crate::WorldError;

/// What an amount is measured in.
pub struct Measure {
    /// An example, for advice.
    example: &'static str,
    /// Endings, and how much one of it is, as a fraction of what is kept.
    endings: &'static [(&'static str, u64, u64)],
    /// How it is written.
    form: Form,
    /// The most that is read.
    most: u64,
}

enum Form {
    /// In the largest of these that it is a whole number of; the last is what is kept.
    Largest(&'static [(&'static str, u64)]),
    /// With a point, so many digits behind it at the most.
    Decimal(u32, &'static str),
}

const PLAIN: &[(&str, u64, u64)] = &[("", 1, 1)];

/// A number of things.
pub const COUNT: Measure = Measure {
    example: "3",
    endings: PLAIN,
    form: Form::Largest(&[("", 1)]),
    most: limits::AMOUNT,
};
/// Whole processors.
pub const CORES: Measure = Measure {
    example: "4c",
    endings: &[("c", 1, 1), ("", 1, 1)],
    form: Form::Largest(&[("c", 1)]),
    most: 1_000_000,
};
/// Processor time in millionths of a core.
pub const MICROCORES: Measure = Measure {
    example: "0.25c",
    endings: &[("c", 1_000_000, 1), ("", 1_000_000, 1)],
    form: Form::Decimal(6, "c"),
    most: limits::AMOUNT,
};
/// Memory or disk in MiB.
pub const MIB: Measure = Measure {
    example: "2G",
    endings: &[
        ("K", 1, 1 << 10),
        ("M", 1, 1),
        ("G", 1 << 10, 1),
        ("T", 1 << 20, 1),
        ("P", 1 << 30, 1),
        ("KiB", 1, 1 << 10),
        ("MiB", 1, 1),
        ("GiB", 1 << 10, 1),
        ("TiB", 1 << 20, 1),
        ("PiB", 1 << 30, 1),
    ],
    form: Form::Largest(&[("T", 1 << 20), ("G", 1 << 10), ("M", 1)]),
    most: 10_000_000_000,
};
/// Memory in KiB.
pub const KIB: Measure = Measure {
    example: "512M",
    endings: &[
        ("K", 1, 1),
        ("M", 1 << 10, 1),
        ("G", 1 << 20, 1),
        ("T", 1 << 30, 1),
        ("KiB", 1, 1),
        ("MiB", 1 << 10, 1),
        ("GiB", 1 << 20, 1),
        ("TiB", 1 << 30, 1),
    ],
    form: Form::Largest(&[("T", 1 << 30), ("G", 1 << 20), ("M", 1 << 10), ("K", 1)]),
    most: limits::AMOUNT,
};
/// Bytes per second; bits with a small b.
pub const RATE: Measure = Measure {
    example: "100MB/s",
    endings: &[
        ("B/s", 1, 1),
        ("kB/s", 1_000, 1),
        ("MB/s", 1_000_000, 1),
        ("GB/s", 1_000_000_000, 1),
        ("TB/s", 1_000_000_000_000, 1),
        ("KiB/s", 1 << 10, 1),
        ("MiB/s", 1 << 20, 1),
        ("GiB/s", 1 << 30, 1),
        ("b/s", 1, 8),
        ("kb/s", 1_000, 8),
        ("Mb/s", 1_000_000, 8),
        ("Gb/s", 1_000_000_000, 8),
    ],
    form: Form::Largest(&[
        ("GB/s", 1_000_000_000),
        ("MB/s", 1_000_000),
        ("kB/s", 1_000),
        ("B/s", 1),
    ]),
    most: limits::AMOUNT,
};
/// Seconds.
pub const SECONDS: Measure = Measure {
    example: "5m",
    endings: &[
        ("s", 1, 1),
        ("m", 60, 1),
        ("h", 3_600, 1),
        ("d", 86_400, 1),
        ("", 1, 1),
    ],
    form: Form::Largest(&[("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)]),
    most: limits::AMOUNT,
};
/// A moment: seconds since 1970-01-01 UTC, or of a clock of one's own.
pub const MOMENT: Measure = Measure {
    form: Form::Largest(&[("s", 1)]),
    ..SECONDS
};
/// Microseconds.
pub const MICROSECONDS: Measure = Measure {
    example: "100us",
    endings: &[("us", 1, 1), ("ms", 1_000, 1), ("s", 1_000_000, 1)],
    form: Form::Largest(&[("s", 1_000_000), ("ms", 1_000), ("us", 1)]),
    most: limits::AMOUNT,
};
/// Things per second.
pub const PER_S: Measure = Measure {
    example: "10/s",
    endings: &[("/s", 1, 1), ("", 1, 1)],
    form: Form::Largest(&[("/s", 1)]),
    most: limits::AMOUNT,
};
/// A share in thousandths.
pub const SHARE: Measure = Measure {
    example: "80%",
    endings: &[("%", 10, 1)],
    form: Form::Decimal(1, "%"),
    most: limits::AMOUNT,
};
/// A share in millionths.
pub const PPM: Measure = Measure {
    example: "0.1%",
    endings: &[("%", 10_000, 1)],
    form: Form::Decimal(4, "%"),
    most: limits::AMOUNT,
};
/// A ratio in thousandths.
pub const RATIO: Measure = Measure {
    example: "1.5",
    endings: &[("", 1_000, 1)],
    form: Form::Decimal(3, ""),
    most: limits::AMOUNT,
};
/// Money an hour, in millionths.
pub const PER_HOUR: Measure = Measure {
    example: "0.05/h",
    endings: &[("/h", 1_000_000, 1), ("", 1_000_000, 1)],
    form: Form::Decimal(6, "/h"),
    most: limits::AMOUNT,
};
/// Money a kilowatt hour, in millionths.
pub const PER_KWH: Measure = Measure {
    example: "0.12/kWh",
    endings: &[("/kWh", 1_000_000, 1), ("", 1_000_000, 1)],
    form: Form::Decimal(6, "/kWh"),
    most: limits::AMOUNT,
};
/// Money a GiB, in millionths.
pub const PER_GIB: Measure = Measure {
    example: "0.02/GiB",
    endings: &[("/GiB", 1_000_000, 1), ("", 1_000_000, 1)],
    form: Form::Decimal(6, "/GiB"),
    most: limits::AMOUNT,
};

impl Measure {
    /// Reads an amount.
    ///
    /// # Errors
    /// If it is no number with an ending known here, too large, or not a whole number of what is kept.
    pub fn read(&self, value: &Value<'_>) -> Result<u64, WorldError> {
        self.read_to(value, self.most)
    }

    /// Reads an amount of 32 bits.
    ///
    /// # Errors
    /// As [`Measure::read`].
    pub fn read_small(&self, value: &Value<'_>) -> Result<u32, WorldError> {
        let amount = self.read_to(value, u64::from(u32::MAX))?;
        u32::try_from(amount).map_err(|_| value.fault("too large", "write less"))
    }

    fn read_to(&self, value: &Value<'_>, most: u64) -> Result<u64, WorldError> {
        let raw = value.raw;
        let end = raw
            .find(|character: char| !character.is_ascii_digit() && character != '.')
            .unwrap_or(raw.len());
        let (number, ending) = raw.split_at(end);
        let advice = || format!("write it like {}", self.example);
        let Some((_, up, down)) = self.endings.iter().find(|(known, _, _)| *known == ending) else {
            let known: Vec<&str> = self
                .endings
                .iter()
                .map(|(ending, _, _)| *ending)
                .filter(|ending| !ending.is_empty())
                .collect();
            let what = if number.is_empty() {
                format!("`{raw}` is no amount")
            } else {
                format!("`{raw}` has no ending that is known here")
            };
            let advice = if known.is_empty() {
                advice()
            } else {
                format!("{}, with one of {}", advice(), known.join(" "))
            };
            return Err(value.fault(what, advice));
        };
        let (whole, part) = number.split_once('.').unwrap_or((number, ""));
        let point = number.contains('.');
        if whole.is_empty() || (point && part.is_empty()) || part.contains('.') {
            return Err(value.fault(format!("`{raw}` is no amount"), advice()));
        }
        // 16 digits before and 12 behind the point fit in 128 bits with every factor above.
        let part = part.trim_end_matches('0');
        let whole = whole.trim_start_matches('0');
        let too_large = || {
            value.fault(
                format!("`{raw}` is too large"),
                "write less, or another ending",
            )
        };
        if whole.len() > 16 {
            return Err(too_large());
        }
        if part.len() > 12 {
            return Err(value.fault(
                format!("`{raw}` has too many digits behind the point"),
                "write fewer",
            ));
        }
        let digits = whole.bytes().chain(part.bytes());
        let number = digits.fold(0u128, |sum, digit| sum * 10 + u128::from(digit - b'0'));
        let scale = 10u128.pow(u32::try_from(part.len()).unwrap_or(0));
        let (above, below) = (number * u128::from(*up), scale * u128::from(*down));
        if !above.is_multiple_of(below) {
            return Err(value.fault(
                format!("`{raw}` is finer than what is counted here"),
                format!("round it to a multiple of {}", self.write(1)),
            ));
        }
        u64::try_from(above / below)
            .ok()
            .filter(|amount| *amount <= most)
            .ok_or_else(too_large)
    }

    /// Writes an amount so that [`Measure::read`] gives it back.
    pub fn write(&self, amount: u64) -> String {
        match self.form {
            Form::Largest(units) => {
                let (ending, size) = units
                    .iter()
                    .find(|(_, size)| amount > 0 && amount.is_multiple_of(*size))
                    .or(units.last())
                    .unwrap_or(&("", 1));
                format!("{}{ending}", amount / size)
            }
            Form::Decimal(digits, ending) => {
                let scale = 10u64.pow(digits);
                let part = format!("{:0width$}", amount % scale, width = digits as usize);
                match part.trim_end_matches('0') {
                    "" => format!("{}{ending}", amount / scale),
                    part => format!("{}.{part}{ending}", amount / scale),
                }
            }
        }
    }
}

/// The largest number with a point.
const LARGEST: f64 = 1e12;

/// Reads a number with a point and one of these endings, each with the power of ten it stands for.
///
/// # Errors
/// If it is no finite number from 0 to 10^12.
pub fn read_real(
    value: &Value<'_>,
    endings: &[(&str, i32)],
    example: &str,
) -> Result<f64, WorldError> {
    let advice = || format!("write it like {example}, from 0 to 10^12");
    let is_number = |text: &str| {
        !text.is_empty()
            && text.len() <= 40
            && text.starts_with(|first: char| first.is_ascii_digit())
            && text
                .chars()
                .all(|character| character.is_ascii_digit() || "eE.+-".contains(character))
    };
    for (ending, power) in endings {
        let Some(number) = value
            .raw
            .strip_suffix(ending)
            .filter(|text| is_number(text))
        else {
            continue;
        };
        // The power goes into the text, so that 0.07kWh are 70 Wh and not the product's neighbour.
        let shifted = if number.contains(['e', 'E']) || *power == 0 {
            number.parse::<f64>().map(|read| read * 10f64.powi(*power))
        } else {
            format!("{number}e{power}").parse::<f64>()
        };
        return match shifted {
            Ok(read) if read.is_finite() && (0.0..=LARGEST).contains(&read) => Ok(read),
            _ => Err(value.fault(format!("`{}` is no such number", value.raw), advice())),
        };
    }
    Err(value.fault(format!("`{}` is no such number", value.raw), advice()))
}

/// Writes a number with a point so that it is read back to the last bit.
pub fn write_real(number: f64) -> String {
    let text = format!("{number:?}");
    match text.strip_suffix(".0") {
        Some(whole) => whole.to_owned(),
        None => text,
    }
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
    fn amounts_are_exact() {
        for (measure, text, amount) in [
            (&CORES, "4c", 4),
            (&MICROCORES, "0.25c", 250_000),
            (&MIB, "2G", 2048),
            (&MIB, "1.5GiB", 1536),
            (&KIB, "0.5M", 512),
            (&RATE, "1Gb/s", 125_000_000),
            (&RATE, "100MB/s", 100_000_000),
            (&SECONDS, "1.5h", 5400),
            (&SHARE, "80.5%", 805),
            (&PPM, "0.1%", 1000),
            (&PER_KWH, "0.12/kWh", 120_000),
        ] {
            assert_eq!(measure.read(&value(text)), Ok(amount), "{text}");
        }
    }

    #[test]
    fn what_is_no_amount_is_refused() {
        for (measure, text) in [
            (&CORES, "0.5c"),
            (&CORES, "-1c"),
            (&MIB, "2"),
            (&MIB, "2g"),
            (&MIB, "1K"),
            (&MIB, "G"),
            (&MIB, "1.G"),
            (&MIB, ".5G"),
            (&MIB, "1.2.3G"),
            (&MIB, "99999999999999999999G"),
            (&RATE, "1b/s"),
            (&COUNT, "1e3"),
            (&COUNT, "18446744073709551616"),
            (&SECONDS, "5 m"),
        ] {
            assert!(measure.read(&value(text)).is_err(), "{text}");
        }
        for text in ["NaN", "inf", "-1W", "1e300W", "", "W", "1.5"] {
            assert!(
                read_real(&value(text), &[("W", 0)], "90W").is_err(),
                "{text}"
            );
        }
    }

    #[test]
    fn a_kilowatt_hour_is_a_thousand_watt_hours_to_the_last_bit() {
        let endings = [("kWh", 3), ("Wh", 0)];
        assert_eq!(read_real(&value("0.07kWh"), &endings, "20Wh"), Ok(70.0));
        assert_eq!(read_real(&value("20Wh"), &endings, "20Wh"), Ok(20.0));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(amount in 0..=limits::AMOUNT, real in 0.0..LARGEST) {
            for measure in [
                &COUNT, &CORES, &MICROCORES, &MIB, &KIB, &RATE, &SECONDS, &MOMENT, &MICROSECONDS,
                &PER_S, &SHARE, &PPM, &RATIO, &PER_HOUR, &PER_KWH, &PER_GIB,
            ] {
                let amount = amount.min(measure.most);
                let text = measure.write(amount);
                prop_assert_eq!(measure.read(&value(&text)), Ok(amount), "{}", text);
            }
            let text = format!("{}W", write_real(real));
            prop_assert_eq!(read_real(&value(&text), &[("W", 0)], "90W"), Ok(real));
        }
    }
}
