//! What a domain has reserved, and what it uses: two vectors of whole numbers, so that sums are exact in every order.

use std::ops::{Add, AddAssign, Index, IndexMut, Sub, SubAssign};

use serde::{Deserialize, Serialize};

/// Kinds of what is promised to a domain, whether it uses it or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReservedKind {
    /// Virtual processors, against the cores of a host.
    Vcpus,
    /// Memory in MiB.
    MemoryMib,
    /// Room on the host's own disks in MiB.
    DiskMib,
    /// Independent disks (Ganeti's spindles).
    Spindles,
}

/// Kinds of what is used, a rate or a level.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UsedKind {
    /// Processor time in millionths of a core.
    CpuMicrocores,
    /// Memory touched in KiB.
    MemoryKib,
    /// Bytes read and written per second.
    DiskBytesPerS,
    /// Bytes sent and received per second.
    NetworkBytesPerS,
}

/// All kinds of what is reserved, in the order of [`Reserved`].
pub const RESERVED: [ReservedKind; 4] = [
    ReservedKind::Vcpus,
    ReservedKind::MemoryMib,
    ReservedKind::DiskMib,
    ReservedKind::Spindles,
];

/// All kinds of what is used, in the order of [`Used`].
pub const USED: [UsedKind; 4] = [
    UsedKind::CpuMicrocores,
    UsedKind::MemoryKib,
    UsedKind::DiskBytesPerS,
    UsedKind::NetworkBytesPerS,
];

macro_rules! amounts {
    ($(#[$doc:meta])* $type:ident, $kind:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $type(pub [u64; 4]);

        impl $type {
            /// Nothing of any kind.
            pub const NONE: Self = Self([0; 4]);
            /// Whether every kind of it is within `room`.
            pub fn fits(&self, room: &Self) -> bool {
                (0..4).all(|kind| self.0[kind] <= room.0[kind])
            }
            /// What is left of each kind, 0 where there is less than `taken`.
            pub fn less(&self, taken: &Self) -> Self {
                Self(std::array::from_fn(|kind| self.0[kind].saturating_sub(taken.0[kind])))
            }
        }
        impl Index<$kind> for $type {
            type Output = u64;
            #[inline]
            fn index(&self, kind: $kind) -> &u64 {
                &self.0[kind as usize]
            }
        }
        impl IndexMut<$kind> for $type {
            #[inline]
            fn index_mut(&mut self, kind: $kind) -> &mut u64 {
                &mut self.0[kind as usize]
            }
        }
        impl AddAssign for $type {
            #[inline]
            fn add_assign(&mut self, more: Self) {
                for kind in 0..4 {
                    self.0[kind] += more.0[kind];
                }
            }
        }
        impl Add for $type {
            type Output = Self;
            #[inline]
            fn add(mut self, more: Self) -> Self {
                self += more;
                self
            }
        }
        impl SubAssign for $type {
            /// # Panics
            /// If there is less than `part` of a kind: a sum that was added to before never is.
            fn sub_assign(&mut self, part: Self) {
                for kind in 0..4 {
                    self.0[kind] = self.0[kind].checked_sub(part.0[kind]).expect("taken off twice");
                }
            }
        }
        impl Sub for $type {
            type Output = Self;
            fn sub(mut self, part: Self) -> Self {
                self -= part;
                self
            }
        }
    };
}

amounts!(
    /// What is promised: processors, memory, disk, spindles.
    Reserved, ReservedKind
);
amounts!(
    /// What is used: processor time, memory, disk and network traffic.
    Used, UsedKind
);

/// How much more may be promised of each kind than there is, in thousandths: 1000 is as much as there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Ratio(pub [u32; 4]);

impl Default for Ratio {
    /// Memory, disk and spindles once, four virtual processors a core (Ganeti's default policy).
    fn default() -> Self {
        Self([4000, 1000, 1000, 1_000_000])
    }
}

impl Ratio {
    /// What may be promised of `there`, rounded down.
    pub fn of(&self, there: &Reserved) -> Reserved {
        Reserved(std::array::from_fn(|kind| {
            let promised = u128::from(there.0[kind]) * u128::from(self.0[kind]) / 1000;
            u64::try_from(promised).unwrap_or(u64::MAX)
        }))
    }
}
