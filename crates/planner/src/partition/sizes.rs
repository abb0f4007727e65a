//! How large things are, in several kinds of room at once.

/// Sizes, or rooms, of things that are numbered: of each the same number of kinds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sizes {
    kinds: usize,
    count: usize,
    all: Vec<u64>,
}

impl Sizes {
    /// Nothing yet, of so many kinds.
    pub fn new(kinds: usize) -> Self {
        Self {
            kinds,
            count: 0,
            all: Vec::new(),
        }
    }

    /// Each of `number` things as large.
    pub fn equal(number: usize, size: &[u64]) -> Self {
        Self {
            kinds: size.len(),
            count: number,
            all: size.repeat(number),
        }
    }

    /// One more.
    ///
    /// # Panics
    /// If it has another number of kinds.
    pub fn push(&mut self, size: &[u64]) {
        assert_eq!(size.len(), self.kinds);
        self.count += 1;
        self.all.extend_from_slice(size);
    }

    /// How many kinds.
    pub fn kinds(&self) -> usize {
        self.kinds
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// How many things.
    pub fn len(&self) -> usize {
        self.count
    }

    /// The size of one.
    pub fn of(&self, thing: usize) -> &[u64] {
        &self.all[thing * self.kinds..(thing + 1) * self.kinds]
    }

    /// Adds to that of one.
    pub fn add(&mut self, thing: usize, size: &[u64]) {
        let row = &mut self.all[thing * self.kinds..(thing + 1) * self.kinds];
        add(row, size);
    }

    /// Takes off that of one.
    ///
    /// # Panics
    /// If there is less.
    pub fn take(&mut self, thing: usize, size: &[u64]) {
        let row = &mut self.all[thing * self.kinds..(thing + 1) * self.kinds];
        for (sum, &part) in row.iter_mut().zip(size) {
            *sum = sum.checked_sub(part).expect("taken off twice");
        }
    }

    /// Of these alone, in this order.
    pub fn between(&self, members: &[u32]) -> Self {
        let mut part = Self::new(self.kinds);
        part.count = members.len();
        for &member in members {
            part.all.extend_from_slice(self.of(member as usize));
        }
        part
    }

    /// All together.
    pub fn sum(&self) -> Vec<u64> {
        self.sum_of(0..self.len())
    }

    /// Some together; more than fits in 64 bits is as much as fits.
    pub fn sum_of(&self, things: impl Iterator<Item = usize>) -> Vec<u64> {
        let mut sum = vec![0u64; self.kinds];
        for thing in things {
            for (sum, &part) in sum.iter_mut().zip(self.of(thing)) {
                *sum = sum.saturating_add(part);
            }
        }
        sum
    }
}

/// Adds kind by kind.
pub fn add(sum: &mut [u64], size: &[u64]) {
    for (sum, &part) in sum.iter_mut().zip(size) {
        *sum += part;
    }
}

/// Whether `size` still fits where `load` of `room` is taken. What adds nothing to a kind is not kept out by it.
pub fn fits(size: &[u64], load: &[u64], room: &[u64]) -> bool {
    let mut kinds = size.iter().zip(load).zip(room);
    kinds.all(|((&size, &load), &room)| size == 0 || load + size <= room)
}

/// Whether `size` fits once `leaving` has left.
pub fn fits_for(size: &[u64], leaving: &[u64], load: &[u64], room: &[u64]) -> bool {
    let mut kinds = size.iter().zip(leaving).zip(load).zip(room);
    kinds
        .all(|(((&size, &leaving), &load), &room)| size <= leaving || load - leaving + size <= room)
}

/// The largest share that `load` takes of `room`, over the kinds; a kind of which there is no room counts only when
/// something of it is there, as a very large share.
pub fn fullest(load: &[u64], room: &[u64]) -> f64 {
    let shares = load
        .iter()
        .zip(room)
        .map(|(&load, &room)| share(load, room));
    shares.fold(0.0, f64::max)
}

/// [`fullest`] with `size` more.
pub fn fullest_with(size: &[u64], load: &[u64], room: &[u64]) -> f64 {
    let loads = size.iter().zip(load).map(|(&size, &load)| size + load);
    let shares = loads.zip(room).map(|(load, &room)| share(load, room));
    shares.fold(0.0, f64::max)
}

fn share(load: u64, room: u64) -> f64 {
    match (load, room) {
        (0, _) => 0.0,
        (load, 0) => load as f64 * 1e9,
        (load, room) => load as f64 / room as f64,
    }
}

/// How much `load` is over `room`, kinds added up as shares of the room.
pub fn over(load: &[u64], room: &[u64]) -> f64 {
    let over = |(&load, &room): (&u64, &u64)| match load.checked_sub(room) {
        None | Some(0) => 0.0,
        Some(over) => over as f64 / room.max(1) as f64,
    };
    load.iter().zip(room).map(over).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_must_fit() {
        assert!(fits(&[1, 2], &[3, 0], &[4, 2]));
        assert!(!fits(&[1, 3], &[3, 0], &[4, 2]));
        assert!(fits_for(&[2, 2], &[1, 0], &[3, 0], &[4, 2]));
        assert_eq!(over(&[5, 1], &[4, 2]), 0.25);
        assert_eq!(fullest(&[2, 1], &[4, 4]), 0.5);
    }

    #[test]
    fn things_of_no_kind_are_counted_too() {
        let mut sizes = Sizes::new(0);
        sizes.push(&[]);
        assert_eq!((sizes.len(), sizes.of(0).len()), (1, 0));
        assert_eq!(Sizes::equal(3, &[]).between(&[1, 2]).len(), 2);
    }

    #[test]
    fn sums_are_by_kind() {
        let mut sizes = Sizes::equal(3, &[1, 2]);
        sizes.add(1, &[5, 5]);
        assert_eq!(sizes.sum(), [8, 11]);
        assert_eq!(sizes.between(&[1]).of(0), [6, 7]);
    }
}
