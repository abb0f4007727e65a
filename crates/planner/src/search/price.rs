//! A price for each byte, where a limit on bytes is reached.
//!
//! Going down by the largest gain takes the heaviest domains first and stands still when the limit is reached, though
//! many light ones would have gained more for as many bytes. So bytes are given a price at which what gains comes to just
//! the limit (the multiplier of Lagrange's relaxation; Everett, Operations Research 11, 1963): found by going down without
//! the limit, at one price after another, each from where the last one ended.

use super::exchange::exchange_roughly;
use super::seeker::Seeker;
use crate::objectives::Value;
use crate::places::{Change, Spot};
use estive_world::{DomainIx, Indexed};

/// How many prices are tried.
const TRIES: u32 = 6;
/// Of what may be done, no more than this share is.
const SHARE: u64 = 2;

/// Looks for it; the seeker then stands at the best state within the limit that was met, and has the price. Without a
/// limit, or where it is not reached, there is none.
pub(super) fn find(seeker: &mut Seeker<'_>, until: u64) {
    let limit = seeker.limits().bytes;
    if limit == u64::MAX
        || seeker.has_carried()
        || seeker.ledger().value().broken != 0
        || !seeker.is_within_limits()
    {
        return;
    }
    let until = seeker.work() + until.saturating_sub(seeker.work()) / SHARE;
    let mark = seeker.mark();
    let mut best: Option<(Value, Vec<Spot>)> = None;
    seeker.limit_bytes(u64::MAX);
    exchange_roughly(seeker, until);
    let gain = -seeker.total().ranks[0];
    let (mut low, mut high) = (0.0, None);
    // A part of what bytes gain on the mean: those at the limit gain less.
    let mut price = gain.max(0.0) / (seeker.bytes().max(1) as f64) / 4.0;
    if seeker.bytes() > limit {
        for _ in 0..TRIES {
            seeker.set_price(price);
            exchange_roughly(seeker, until);
            if seeker.work() >= until {
                break;
            }
            if seeker.bytes() <= limit {
                high = Some(price);
                let total = seeker.unpriced();
                if best
                    .as_ref()
                    .is_none_or(|(least, _)| seeker.less(&total, least))
                {
                    best = Some((total, seeker.spots()));
                }
            } else {
                low = price;
            }
            price = high.map_or(price * 2.0, |high| (low + high) / 2.0);
        }
        seeker.set_price(0.0);
        match best {
            Some((_, spots)) => stand_at(seeker, &spots),
            None => seeker.back_to(mark),
        }
        seeker.set_price(high.unwrap_or(0.0));
    }
    seeker.limit_bytes(limit);
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
