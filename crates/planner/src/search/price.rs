//! A price for each byte, where a limit on bytes is reached.
//!
//! Going down by the largest gain takes the heaviest domains first and stands still when the limit is reached, though
//! many light ones would have gained more for as many bytes. So bytes are given a price at which what gains comes to just
//! the limit (the multiplier of Lagrange's relaxation; Everett, Operations Research 11, 1963): found by going down without
//! the limit, at one price after another, each from where the last one ended.

use estive_world::{DomainIx, Indexed};

use super::exchange::exchange_roughly;
use super::limits::{Limits, Price};
use super::seeker::Seeker;
use crate::objectives::Value;
use crate::places::{Change, Spot};

/// How many prices are tried.
const TRIES: u32 = 6;
/// Of what may be done, no more than this share is.
const SHARE: u64 = 2;

/// Looks for it; the seeker then stands at the best state within the limit that was met, and has the price. Without a
/// limit, or where it is not reached, there is none.
pub(super) fn find(seeker: &mut Seeker<'_>, until: u64) {
    let limits = seeker.limits();
    let is_free = limits.bytes == u64::MAX && limits.memory_bytes == u64::MAX;
    let begins = !seeker.goes_on() && seeker.ledger().value().broken == 0;
    if is_free || !begins {
        return;
    }
    let until = seeker.work() + until.saturating_sub(seeker.work()) / SHARE;
    let mark = seeker.mark();
    seeker.set_limits(Limits {
        moves: limits.moves,
        ..Limits::NONE
    });
    exchange_roughly(seeker, until);
    let spent = seeker.spent();
    if !spent.is_within(limits) {
        let of_memory = spent.memory_bytes > limits.memory_bytes;
        let gain = -seeker.total().ranks[0];
        match at_prices(seeker, limits, gain, of_memory, until) {
            Some((price, spots)) => {
                stand_at(seeker, &spots);
                seeker.set_price(price);
            }
            None => seeker.back_to(mark),
        }
    }
    seeker.set_limits(limits);
}

/// Goes down at one price after another, halving between the dearest that is too cheap and the cheapest that is dear
/// enough; that and the best state within the limits.
fn at_prices(
    seeker: &mut Seeker<'_>,
    limits: Limits,
    gain: f64,
    of_memory: bool,
    until: u64,
) -> Option<(Price, Vec<Spot>)> {
    let whole = Price {
        each: 1.0,
        of_memory,
    };
    // A part of what bytes gain on the mean: those at the limit gain less.
    let mut price = Price {
        each: gain.max(0.0) / whole.of(seeker.spent()).max(1.0) / 4.0,
        of_memory,
    };
    let (mut low, mut high): (f64, Option<Price>) = (0.0, None);
    let mut best: Option<(Value, Vec<Spot>)> = None;
    for _ in 0..TRIES {
        seeker.set_price(price);
        exchange_roughly(seeker, until);
        if seeker.work() >= until {
            break;
        }
        if seeker.spent().is_within(limits) {
            high = Some(price);
            let total = seeker.unpriced();
            if (best.as_ref()).is_none_or(|(least, _)| seeker.less(&total, least)) {
                best = Some((total, seeker.spots()));
            }
        } else {
            low = price.each;
        }
        price.each = high.map_or(price.each * 2.0, |high| (low + high.each) / 2.0);
    }
    seeker.set_price(Price::default());
    best.zip(high).map(|((_, spots), price)| (price, spots))
}

/// Puts everything where it was in a state that was met.
fn stand_at(seeker: &mut Seeker<'_>, spots: &[Spot]) {
    for (number, &to) in spots.iter().enumerate() {
        let domain = DomainIx::of(number);
        if seeker.ledger().spot(domain) != to {
            seeker.apply(Change { domain, to });
        }
    }
}
