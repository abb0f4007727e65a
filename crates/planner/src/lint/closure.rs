//! The largest value of a sum over down-sets: what can be brought somewhere before enough is taken away.
//!
//! Events that bring something are gains, events that take something away are losses; a gain can only be had with the
//! losses that it needs (steps that must have ended before). The largest sum of a set that is closed under needing is a
//! maximum closure: all gains less a maximum flow from gains to the losses that they need (Picard 1976). Flow is pushed
//! along shortest ways (Edmonds and Karp), found breadth first over bit sets.

/// What is asked.
pub struct Closure {
    /// What each gain brings.
    pub gains: Vec<u64>,
    /// What each loss takes away.
    pub losses: Vec<u64>,
    words: usize,
    needs: Vec<u64>,
}

/// A down-set in which the sum is larger than it may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Worst {
    /// The sum: gains less losses.
    pub value: u64,
    /// Gains in it.
    pub gains: Vec<usize>,
    /// Losses in it.
    pub losses: Vec<usize>,
}

impl Closure {
    /// Gains and losses, and which gain (the first argument) needs which loss.
    pub fn new(gains: Vec<u64>, losses: Vec<u64>, needs: impl Fn(usize, usize) -> bool) -> Self {
        let words = losses.len().div_ceil(64);
        let mut bits = vec![0u64; words * gains.len()];
        for gain in 0..gains.len() {
            for loss in 0..losses.len() {
                if needs(gain, loss) {
                    bits[gain * words + loss / 64] |= 1 << (loss % 64);
                }
            }
        }
        Self {
            gains,
            losses,
            words,
            needs: bits,
        }
    }

    fn needs(&self, gain: usize) -> &[u64] {
        &self.needs[gain * self.words..][..self.words]
    }

    /// The down-set of the largest sum, if that is above `at_most`.
    pub fn above(&self, at_most: u64) -> Option<Worst> {
        let all: u64 = self.gains.iter().sum();
        if all <= at_most {
            return None;
        }
        let mut flow = Flow::new(self);
        flow.greedy();
        while all - flow.pushed > at_most {
            if !flow.augment() {
                return Some(flow.cut());
            }
        }
        None
    }
}

struct Flow<'a> {
    closure: &'a Closure,
    /// Of each gain what has not been pushed on yet.
    supply: Vec<u64>,
    /// Of each loss what it can still take.
    demand: Vec<u64>,
    /// By loss: which gain pushes how much into it.
    into: Vec<Vec<(usize, u64)>>,
    pushed: u64,
}

impl<'a> Flow<'a> {
    fn new(closure: &'a Closure) -> Self {
        Self {
            closure,
            supply: closure.gains.clone(),
            demand: closure.losses.clone(),
            into: vec![Vec::new(); closure.losses.len()],
            pushed: 0,
        }
    }

    fn push(&mut self, gain: usize, loss: usize, amount: u64) {
        match self.into[loss].iter_mut().find(|(from, _)| *from == gain) {
            Some((_, there)) => *there += amount,
            None => self.into[loss].push((gain, amount)),
        }
    }

    /// Straight ways first, the latest loss first: where steps form a chain this is all there is.
    fn greedy(&mut self) {
        for gain in 0..self.supply.len() {
            let needed: Vec<usize> = ones(self.closure.needs(gain)).collect();
            for loss in needed.into_iter().rev() {
                let amount = self.supply[gain].min(self.demand[loss]);
                if amount > 0 {
                    self.supply[gain] -= amount;
                    self.demand[loss] -= amount;
                    self.pushed += amount;
                    self.push(gain, loss, amount);
                }
                if self.supply[gain] == 0 {
                    break;
                }
            }
        }
    }

    /// Searches breadth first from gains with supply; calls `end` at each loss with the way there and stops when it says so.
    fn search(&self, mut end: impl FnMut(usize) -> bool) -> Search {
        let (gains, losses) = (self.supply.len(), self.demand.len());
        let mut search = Search {
            gain_from: vec![None; gains],
            loss_from: vec![None; losses],
            found: None,
        };
        let mut unseen = vec![u64::MAX; self.closure.words];
        let mut queue: std::collections::VecDeque<usize> = std::collections::VecDeque::new();
        for gain in (0..gains).filter(|&gain| self.supply[gain] > 0) {
            search.gain_from[gain] = Some(usize::MAX);
            queue.push_back(gain);
        }
        while let Some(gain) = queue.pop_front() {
            for (word, (needs, unseen)) in
                (self.closure.needs(gain).iter().zip(&mut unseen)).enumerate()
            {
                let mut fresh = needs & *unseen;
                *unseen &= !fresh;
                while fresh != 0 {
                    let loss = word * 64 + fresh.trailing_zeros() as usize;
                    fresh &= fresh - 1;
                    search.loss_from[loss] = Some(gain);
                    if end(loss) {
                        search.found = Some(loss);
                        return search;
                    }
                    for &(back, amount) in &self.into[loss] {
                        if amount > 0 && search.gain_from[back].is_none() {
                            search.gain_from[back] = Some(loss);
                            queue.push_back(back);
                        }
                    }
                }
            }
        }
        search
    }

    /// Pushes along one shortest way; false if there is none.
    fn augment(&mut self) -> bool {
        let demand = self.demand.clone();
        let search = self.search(|loss| demand[loss] > 0);
        let Some(last) = search.found else {
            return false;
        };
        // The way back from the loss that was found: pairs of gain and loss, and what flows back between them.
        let mut way = Vec::new();
        let mut loss = last;
        let mut amount = self.demand[last];
        let first = loop {
            let gain = search.loss_from[loss].expect("reached");
            way.push((gain, loss));
            match search.gain_from[gain] {
                Some(usize::MAX) | None => break gain,
                Some(back) => {
                    let flowing = self.into[back].iter().find(|(from, _)| *from == gain);
                    amount = amount.min(flowing.expect("flows").1);
                    loss = back;
                }
            }
        };
        amount = amount.min(self.supply[first]);
        self.supply[first] -= amount;
        self.demand[last] -= amount;
        self.pushed += amount;
        for (at, &(gain, loss)) in way.iter().enumerate() {
            self.push(gain, loss, amount);
            if let Some(&(_, back)) = way.get(at + 1) {
                let there = self.into[back].iter_mut().find(|(from, _)| *from == gain);
                there.expect("flows").1 -= amount;
            }
        }
        true
    }

    /// What is reached when no way is left: the closure of the largest sum.
    fn cut(&self) -> Worst {
        let search = self.search(|_| false);
        let gains: Vec<usize> = (0..self.supply.len())
            .filter(|&gain| search.gain_from[gain].is_some())
            .collect();
        let losses: Vec<usize> = (0..self.demand.len())
            .filter(|&loss| search.loss_from[loss].is_some())
            .collect();
        Worst {
            value: self.supply.iter().sum(),
            gains,
            losses,
        }
    }
}

/// How a search came where it came.
struct Search {
    gain_from: Vec<Option<usize>>,
    loss_from: Vec<Option<usize>>,
    found: Option<usize>,
}

fn ones(bits: &[u64]) -> impl Iterator<Item = usize> + '_ {
    bits.iter().enumerate().flat_map(|(word, &bits)| {
        let mut left = bits;
        std::iter::from_fn(move || {
            let bit = (left != 0).then(|| left.trailing_zeros() as usize)?;
            left &= left - 1;
            Some(word * 64 + bit)
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The largest sum by looking at every set of gains.
    fn by_hand(closure: &Closure) -> i128 {
        (0u32..1 << closure.gains.len())
            .map(|set| {
                let mut needed = vec![false; closure.losses.len()];
                let mut sum = 0;
                for gain in (0..closure.gains.len()).filter(|gain| set >> gain & 1 == 1) {
                    sum += i128::from(closure.gains[gain]);
                    ones(closure.needs(gain)).for_each(|loss| needed[loss] = true);
                }
                let taken = (0..needed.len()).filter(|&loss| needed[loss]);
                sum - taken
                    .map(|loss| i128::from(closure.losses[loss]))
                    .sum::<i128>()
            })
            .max()
            .unwrap_or(0)
    }

    proptest! {
        #[test]
        fn it_is_the_largest_of_all_sets(
            gains in prop::collection::vec(0..20u64, 0..9),
            losses in prop::collection::vec(0..20u64, 0..9),
            needs in prop::collection::vec(any::<bool>(), 81),
            at_most in 0..60u64,
        ) {
            let closure = Closure::new(gains, losses, |gain, loss| needs[gain * 9 + loss]);
            let largest = by_hand(&closure);
            match closure.above(at_most) {
                None => prop_assert!(largest <= i128::from(at_most)),
                Some(worst) => {
                    prop_assert_eq!(i128::from(worst.value), largest);
                    let brought: u64 = worst.gains.iter().map(|&gain| closure.gains[gain]).sum();
                    let taken: u64 = worst.losses.iter().map(|&loss| closure.losses[loss]).sum();
                    prop_assert_eq!(brought - taken, worst.value);
                    for &gain in &worst.gains {
                        prop_assert!(ones(closure.needs(gain)).all(|loss| worst.losses.contains(&loss)));
                    }
                }
            }
        }
    }
}
