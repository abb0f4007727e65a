//! What a plan must keep to, what a state has spent of it, and what bytes cost where a limit on them is reached.

/// What a plan must keep to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Domains whose spot may differ from the world's.
    pub moves: u64,
    /// Bytes that may be carried.
    pub bytes: u64,
    /// Memory promised to domains that may be on another host.
    pub memory_bytes: u64,
}

impl Limits {
    /// None at all.
    pub const NONE: Self = Self {
        moves: u64::MAX,
        bytes: u64::MAX,
        memory_bytes: u64::MAX,
    };
}

/// What a domain's spot, or all of them, count of each limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Spent {
    pub moves: u64,
    pub bytes: u64,
    pub memory_bytes: u64,
}

impl Spent {
    /// Where one domain's part was one thing and is another.
    pub(super) fn with(self, was: Self, is: Self) -> Self {
        Self {
            moves: self.moves - was.moves + is.moves,
            bytes: self.bytes - was.bytes + is.bytes,
            memory_bytes: self.memory_bytes - was.memory_bytes + is.memory_bytes,
        }
    }

    pub(super) fn is_within(self, limits: Limits) -> bool {
        self.moves <= limits.moves
            && self.bytes <= limits.bytes
            && self.memory_bytes <= limits.memory_bytes
    }

    /// Whether there is room for one more that carries as much as these do on the mean.
    pub(super) fn has_slack(self, limits: Limits) -> bool {
        let each = |bytes: u64| bytes.saturating_add(bytes / self.moves.max(1));
        self.moves < limits.moves
            && each(self.bytes) <= limits.bytes
            && each(self.memory_bytes) <= limits.memory_bytes
    }
}

/// What a byte costs in the first rank, beside tolls.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Price {
    pub each: f64,
    /// Of memory only, or of all.
    pub of_memory: bool,
}

impl Price {
    pub(super) fn of(self, spent: Spent) -> f64 {
        let bytes = if self.of_memory {
            spent.memory_bytes
        } else {
            spent.bytes
        };
        self.each * bytes as f64
    }
}
