//! The testbed's own program: holder and first process of an outer namespace, and what measures inside it.
#![allow(clippy::disallowed_methods)]

use std::ffi::OsString;
use std::process::ExitCode;

use estive_testbed::{Error, Kept, Outer, outer};

const USAGE: &str =
    "usage: estive-bed outer -- PROGRAM [ARGUMENT]...   run a program in an outer namespace
       estive-bed down                            take a kept testbed down";

fn main() -> ExitCode {
    outer::enter_if_asked();
    let mut arguments = std::env::args_os().skip(1);
    let command = arguments.next().unwrap_or_default();
    let rest: Vec<OsString> = arguments.collect();
    match run(&command.to_string_lossy(), rest) {
        Ok(code) => ExitCode::from(u8::try_from(code).unwrap_or(1)),
        Err(error) => {
            eprintln!("estive-bed: {error}");
            let mut source = std::error::Error::source(&error);
            while let Some(cause) = source {
                eprintln!("  because: {cause}");
                source = cause.source();
            }
            ExitCode::FAILURE
        }
    }
}

fn run(command: &str, rest: Vec<OsString>) -> Result<i32, Error> {
    match command {
        "outer" => Outer::new(rest.into_iter().skip_while(|word| word == "--")).run(),
        "down" => match Kept::find()? {
            Some(kept) => kept.down().map(|()| 0),
            None => {
                eprintln!("estive-bed: no testbed is kept up");
                Ok(0)
            }
        },
        _ => {
            eprintln!("{USAGE}");
            Ok(2)
        }
    }
}
