//! A window: what one sensor counted in one period of the clock.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// How long a window is. Windows are aligned to the clock, so that those of all hosts with one number are of one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct Period(u32);

impl Period {
    /// What the paper has.
    pub const COMMON: Self = Self(30);
    /// The longest: an hour.
    pub const LONGEST_S: u32 = 3600;

    /// So many seconds, 1 to [`Self::LONGEST_S`]; they must divide a day, so that windows begin alike each day.
    pub fn of_s(seconds: u32) -> Option<Self> {
        let fits = (1..=Self::LONGEST_S).contains(&seconds) && 86_400 % seconds == 0;
        fits.then_some(Self(seconds))
    }

    /// Its length in seconds.
    pub fn seconds(self) -> u32 {
        self.0
    }

    /// Number of the window that a moment is in; moments are milliseconds since 1970.
    pub fn window_of(self, at_ms: u64) -> u64 {
        at_ms / self.ms()
    }

    /// When a window begins, in milliseconds since 1970.
    pub fn begins_ms(self, window: u64) -> u64 {
        window.saturating_mul(self.ms())
    }

    /// When it ends.
    pub fn ends_ms(self, window: u64) -> u64 {
        self.begins_ms(window.saturating_add(1))
    }

    pub(crate) fn ms(self) -> u64 {
        u64::from(self.0) * 1000
    }
}

impl TryFrom<u32> for Period {
    type Error = String;

    fn try_from(seconds: u32) -> Result<Self, String> {
        Self::of_s(seconds).ok_or_else(|| {
            format!(
                "{seconds} s is no period: 1 to {} that divide a day",
                Self::LONGEST_S
            )
        })
    }
}

impl From<Period> for u32 {
    fn from(period: Period) -> Self {
        period.0
    }
}

/// Who sends or receives.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Party {
    /// A domain of the herd, by name.
    Domain(Arc<str>),
    /// Somebody else, by address.
    Outside(Arc<str>),
    /// Those for whom there was no row left.
    Others,
}

/// Packets and bytes as on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Volume {
    /// Packets; a segmented one counts as all its segments.
    pub messages: u64,
    /// Bytes with headers.
    pub bytes: u64,
}

impl Volume {
    /// Both together; what is beyond 64 bits stays at the most.
    pub fn with(self, more: Self) -> Self {
        Self {
            messages: self.messages.saturating_add(more.messages),
            bytes: self.bytes.saturating_add(more.bytes),
        }
    }
}

/// What went from one to another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flow {
    /// Who sent it.
    pub from: Party,
    /// To whom.
    pub to: Party,
    /// How much.
    #[serde(flatten)]
    pub volume: Volume,
}

/// What one sensor counted in one period. A sensor whose host gives a domain away, or that starts anew within a period, sends
/// more than one part; the one that is `last` closes the window for this sensor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// Whose: a host's name.
    pub sensor: Arc<str>,
    /// Number of the period: seconds since 1970 divided by its length.
    pub number: u64,
    /// Parts of one window count from 0.
    pub part: u32,
    /// Whether no other part comes.
    pub last: bool,
    /// What went where; the same pair may stand there more than once.
    pub flows: Vec<Flow>,
}
