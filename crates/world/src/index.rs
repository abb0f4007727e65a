//! Places in the vectors of a world.

use std::ops::{Index, IndexMut};

use serde::{Deserialize, Serialize};

/// A place in a vector of a world.
pub trait Indexed: Copy {
    /// Its number, from 0.
    fn at(self) -> usize;
    /// The place of a number.
    ///
    /// # Panics
    /// If it does not fit in 32 bits: the text form refuses such worlds.
    fn of(number: usize) -> Self;
}

macro_rules! index {
    ($(#[$doc:meta])* $type:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $type(pub u32);

        impl Indexed for $type {
            #[inline]
            fn at(self) -> usize {
                self.0 as usize
            }
            #[inline]
            fn of(number: usize) -> Self {
                Self(u32::try_from(number).expect("a world holds fewer than 2^32 of anything"))
            }
        }
        impl<T> Index<$type> for Vec<T> {
            type Output = T;
            #[inline]
            fn index(&self, place: $type) -> &T {
                &self[place.at()]
            }
        }
        impl<T> IndexMut<$type> for Vec<T> {
            #[inline]
            fn index_mut(&mut self, place: $type) -> &mut T {
                &mut self[place.at()]
            }
        }
    };
}

index!(
    /// A site of `World::sites`.
    SiteIx
);
index!(
    /// A host of `World::hosts`.
    HostIx
);
index!(
    /// A domain of `World::domains`.
    DomainIx
);
index!(
    /// A user of `World::users`.
    UserIx
);
index!(
    /// A volume of `World::volumes`.
    VolumeIx
);
