//! How a host shares its processors among guests.

/// What a guest asks of a host, and what its move does to it there.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ask {
    /// MIPS asked.
    pub mips: f64,
    /// What a move does.
    pub stay: Stay,
}

/// How a guest is on a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stay {
    /// It lives there.
    Settled,
    /// It is leaving: it gets nine tenths of its share.
    Leaving,
    /// It is coming: a tenth of what it asks is booked.
    Coming,
}

/// What each guest gets. One processor of a guest gets no more than one core. If all together ask more than there is, all
/// are scaled alike, each rounded down.
pub fn shares(core_mips: f64, host_mips: f64, asks: &[Ask], given: &mut Vec<f64>) {
    given.clear();
    let mut free = host_mips;
    let mut fits = true;
    for ask in asks {
        let capped = ask.mips.min(core_mips);
        let booked = if ask.stay == Stay::Coming {
            capped * 0.1
        } else {
            capped
        };
        if free < booked {
            fits = false;
            break;
        }
        free -= booked;
        given.push(match ask.stay {
            Stay::Settled => capped,
            Stay::Leaving => capped * 0.9,
            Stay::Coming => capped * 0.1,
        });
    }
    if fits {
        return;
    }
    given.clear();
    let wanted: f64 = asks
        .iter()
        .map(|ask| {
            let capped = ask.mips.min(core_mips);
            if ask.stay == Stay::Coming {
                capped * 0.1
            } else {
                capped
            }
        })
        .sum();
    let scale = host_mips / wanted;
    given.extend(asks.iter().map(|ask| {
        let capped = ask.mips.min(core_mips);
        match ask.stay {
            Stay::Settled => capped * scale,
            Stay::Leaving => capped * scale * 0.9,
            Stay::Coming => capped * 0.1 * scale,
        }
        .floor()
    }));
}
