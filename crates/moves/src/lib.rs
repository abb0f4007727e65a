//! Who may run a domain: the pure state machine behind start, stop and move. No I/O, no clock.
//!
//! A domain runs once, or not at all, never twice. Two durable places decide it: each agent's *journal* (an [`Entry`]
//! for each domain it ever heard of) and the manager's *store* (an [`Ownership`] for each domain). [`step`] says what
//! an agent does on every order and every thing it sees; [`decide`] says what the manager does next. Both are explored
//! exhaustively (`estive-sim`, `explore`): any crash, loss, duplicate, delay.
//!
//! ```text
//!   journal of one agent, for one domain                    g = generation, n = granted generation (n > floor)
//!
//!            define(g)            start(g)
//!   Absent ───────────► Stopped ◄────────► Running(g) ◄─────────────────────────┐
//!     ▲  │                        stop         │ move(n)     failed, aborted,    │
//!     │  │                                     ▼             not ready: resume   │
//!     │  │ prepare(n)                      Outgoing(g,n) ────────────────────────┘
//!     │  ▼                                     │ stream sent, destination says "ready",
//!     │ Incoming(n)                            │ or post-copy is switched to
//!     │  │   │ commit(n)                       ▼
//!     │  │   └──────────► Running(n)       Released(g,n)      ◄── the point of no return, write (2)
//!     │  │                write (3), fence(n)   │ destination says "taken" or "lost"
//!     │  │ discard(n)                          ▼
//!     └──┴──────────────────────────────────  Absent
//!
//!   A stopped one is made anew, of something else, by define(n).
//!
//!              save(g)          memory on disk                 restore(n)           loaded, fence(n) confirmed
//!   Running(g) ───────► Saving ───────────────► Saved ──────────────────► Restoring ─────────────► Running(n)
//!       ▲                  │ failed, restarted   ▲ │ drop: Stopped            │ failed, stop, restarted
//!       └──────────────────┘                     └─┴──────────────────────────┘
//!
//!   the manager's store, for one domain
//!
//!   owner S, g ──(1) move n granted──► owner S, g, moving n to D ──(4) D runs n──► owner D, n
//!        ▲                                   │
//!        └────────── source says aborted ────┘
//! ```
//!
//! **Invariants** (checked by the exploration)
//! 1. Processors of a domain never run on two hosts at once, and never again on a source that released it.
//! 2. An [`Entry`] changes only by [`Effect::Persist`], which is durable before the next effect is done.
//! 3. `floor` never goes down: what was granted up to it is decided here, and a late or repeated order is refused.
//! 4. The destination runs only after `commit(n)`, which the source sends only after it has persisted `Released(n)`.
//! 5. Only the source ends a move. The manager tells a destination to discard only after the source's journal says
//!    that this grant is over.
//!
//! 6. Before the first instruction under a generation, the storage has confirmed that no export of the domain's volume
//!    below that generation is left ([`Effect::Fence`]); a running domain's own export is never cut.
//! 7. What was saved is run from once at most, and only when no processor of the domain has run since: `Running` is written
//!    before the first instruction, and from then on the file is nothing.
//!
//! Source: architecture page, "State and truth" (a move commits in four durable writes).

mod decide;
mod entry;
mod saved;
mod step;

pub use decide::{Decision, HostView, Ownership, PendingMove, Wanted, decide, leftover};
pub use entry::{Entry, Grant, Holding, Seen};
pub use step::{Answer, CommitOutcome, Effect, Input, Refusal, step};
