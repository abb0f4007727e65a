//! A test guest's `/sbin/init`; see the library.

fn main() {
    estive_beat::run()
}
