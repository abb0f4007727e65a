//! A question as people write it: `ask objective=balance moves=10 seed=1 budget=100000`.
//!
//! An objective is ranks, most important first, with `,` or `then` between; a rank is terms with `+` between, each with a
//! weight before or behind a `*`; a term is its name, with what it needs in brackets: `guests-out(h1,h2) then 2*balance + cost`.

use estive_world::text::{COUNT, Document, Fields, KIB, Line, SHARE, Value, quoted, read_real};
use estive_world::{HostIx, World, WorldError};

use crate::about::{About, Named, about, host_of};
use crate::{Budget, Objective, Question, Term, Weighted};

/// The most ranks, and the most terms of all ranks.
const TERMS: usize = 32;
/// The most lanes.
const LANES: u32 = 64;
/// Spare room that `consolidate` keeps when nothing is said, in thousandths.
const SPARE_MILLI: u32 = 100;

/// A question of a file.
#[derive(Debug, Clone, PartialEq)]
pub struct Asked {
    /// Its name; empty: it has none.
    pub name: String,
    /// Its line.
    pub line: u32,
    /// What is asked for.
    pub about: About,
    /// What is better, and within which limits.
    pub question: Question,
}

impl Default for Question {
    /// Balance, any number of moves, 100,000 candidates on 8 lanes.
    fn default() -> Self {
        Self {
            objective: Objective {
                ranks: vec![vec![Weighted {
                    term: Term::Balance,
                    weight: 1.0,
                }]],
            },
            moves_at_most: None,
            bytes_at_most: None,
            memory_bytes_at_most: None,
            budget: Budget { work: 100_000 },
            seed: 1,
            lanes: 8,
        }
    }
}

/// The questions of a text, in order.
///
/// # Errors
/// With the place of the first thing that is wrong.
pub fn asked(document: &Document<'_>) -> Result<Vec<Asked>, WorldError> {
    asked_or(document, &Question::default())
}

/// The same, where what a line does not say is as in a common question.
///
/// # Errors
/// With the place of the first thing that is wrong.
pub fn asked_or(document: &Document<'_>, common: &Question) -> Result<Vec<Asked>, WorldError> {
    let named = Named::of(&document.world);
    (document.asks.iter())
        .map(|line| read(line, &document.world, &named, common))
        .collect()
}

fn read(
    line: &Line<'_>,
    world: &World,
    named: &Named<'_>,
    common: &Question,
) -> Result<Asked, WorldError> {
    let mut fields = Fields::of(line);
    let mut question = common.clone();
    let name = match fields.optional_name() {
        Some(value) => value.name()?.into_owned(),
        None => String::new(),
    };
    if let Some(value) = fields.key("objective") {
        question.objective = Objective::read(value, world)?;
    }
    if let Some(value) = fields.key("moves") {
        question.moves_at_most = match value.raw {
            "any" => None,
            _ => Some(COUNT.read_small(value)?),
        };
    }
    if let Some(value) = fields.key("bytes") {
        question.bytes_at_most = match value.raw {
            "any" => None,
            _ => Some(KIB.read(value)?.saturating_mul(1024)),
        };
    }
    if let Some(value) = fields.key("seed") {
        question.seed = value.raw.parse().map_err(|_| {
            value.fault(
                format!("`{}` is no seed", value.raw),
                "write a whole number below 2^64",
            )
        })?;
    }
    question.budget.work = fields.amount("budget", &COUNT, question.budget.work)?;
    if let Some(value) = fields.key("lanes") {
        question.lanes = COUNT.read_small(value)?;
        if !(1..=LANES).contains(&question.lanes) {
            return Err(value.fault(
                format!("{} lanes", question.lanes),
                format!("write 1 to {LANES}; 8 is common"),
            ));
        }
    }
    let about = about(&mut fields, named)?;
    fields.end()?;
    Ok(Asked {
        name,
        line: line.word.line,
        about,
        question,
    })
}

impl Objective {
    /// Reads an objective that stands by itself, as on a command line.
    ///
    /// # Errors
    /// With the place in `text` of the first thing that is wrong.
    pub fn from_text(text: &str, world: &World) -> Result<Self, WorldError> {
        Parser::of(text, 1, 1, world).objective()
    }

    /// Reads the value of a key.
    fn read(value: &Value<'_>, world: &World) -> Result<Self, WorldError> {
        let text = value.one()?;
        let column = value.column + u32::from(value.raw.starts_with('"'));
        Parser::of(&text, value.line, column, world).objective()
    }

    /// Its text, which [`Objective::from_text`] reads back.
    pub fn to_text(&self, world: &World) -> String {
        let weighted = |weighted: &Weighted| {
            let term = match &weighted.term {
                Term::Balance => "balance".to_owned(),
                Term::Consolidate { spare_milli } => {
                    format!(
                        "consolidate(spare={})",
                        SHARE.write(u64::from(*spare_milli))
                    )
                }
                Term::Locality => "locality".to_owned(),
                Term::Cost => "cost".to_owned(),
                Term::Time => "time".to_owned(),
                Term::GuestsOut { hosts } => {
                    let hosts: Vec<_> = (hosts.iter())
                        .map(|host| quoted(&world.hosts[*host].name))
                        .collect();
                    format!("guests-out({})", hosts.join(","))
                }
                Term::Fair => "fair".to_owned(),
            };
            if weighted.weight == 1.0 {
                term
            } else {
                format!("{}*{term}", weighted.weight)
            }
        };
        let ranks: Vec<String> = (self.ranks.iter())
            .map(|rank| rank.iter().map(weighted).collect::<Vec<_>>().join(" + "))
            .collect();
        ranks.join(" then ")
    }
}

/// An objective half read.
struct Parser<'a, 'w> {
    text: &'a str,
    /// Where the rest begins.
    at: usize,
    line: u32,
    column: u32,
    world: &'w World,
}

const GRAMMAR: &str = "write terms with + between, ranks with `then` or a comma: guests-out(h1) then 2*balance + cost";

impl<'a, 'w> Parser<'a, 'w> {
    fn of(text: &'a str, line: u32, column: u32, world: &'w World) -> Self {
        Self {
            text,
            at: 0,
            line,
            column,
            world,
        }
    }

    fn objective(mut self) -> Result<Objective, WorldError> {
        let mut ranks = Vec::new();
        let mut terms = 0;
        loop {
            let mut rank = Vec::new();
            loop {
                terms += 1;
                if terms > TERMS {
                    return Err(self
                        .here()
                        .fault("too many terms", format!("write at most {TERMS}")));
                }
                rank.push(self.weighted()?);
                if !self.takes("+") {
                    break;
                }
            }
            ranks.push(rank);
            if self.rest().is_empty() {
                return Ok(Objective { ranks });
            }
            if !self.takes(",") && !self.takes_then() {
                let rest = self.here();
                return Err(rest.fault(format!("`{}` is not understood", rest.raw), GRAMMAR));
            }
        }
    }

    fn weighted(&mut self) -> Result<Weighted, WorldError> {
        let mut weight = None;
        if self
            .rest()
            .starts_with(|first: char| first.is_ascii_digit())
        {
            weight = Some(self.number()?);
            if !self.takes("*") {
                return Err(self.here().fault("a weight without a term", GRAMMAR));
            }
        }
        let term = self.term()?;
        if weight.is_none() && self.takes("*") {
            weight = Some(self.number()?);
        }
        Ok(Weighted {
            term,
            weight: weight.unwrap_or(1.0),
        })
    }

    fn number(&mut self) -> Result<f64, WorldError> {
        let rest = self.rest();
        let end = rest
            .find(|character: char| !character.is_ascii_digit() && character != '.')
            .unwrap_or(rest.len());
        let value = self.value(self.at, self.at + end);
        let number = read_real(&value, &[("", 0)], "0.5")?;
        self.at += end;
        Ok(number)
    }

    fn term(&mut self) -> Result<Term, WorldError> {
        let rest = self.rest();
        let end = rest
            .find(|character: char| !character.is_ascii_alphabetic() && character != '-')
            .unwrap_or(rest.len());
        let name = self.value(self.at, self.at + end);
        self.at += end;
        let inside = self.brackets()?;
        let simple = |term: Term| match &inside {
            Some(inside) => Err(inside.fault(
                format!("{} takes nothing in brackets", name.raw),
                "leave them out",
            )),
            None => Ok(term),
        };
        match name.raw {
            "balance" => simple(Term::Balance),
            "locality" => simple(Term::Locality),
            "cost" => simple(Term::Cost),
            "time" => simple(Term::Time),
            "fair" => simple(Term::Fair),
            "consolidate" => {
                let spare_milli = match inside {
                    None => SPARE_MILLI,
                    Some(inside) => match inside.raw.strip_prefix("spare=") {
                        Some(raw) => SHARE.read_small(&Value { raw, ..inside })?,
                        None => {
                            return Err(inside.fault(
                                format!("`{}` is not understood", inside.raw),
                                "write consolidate(spare=10%)",
                            ));
                        }
                    },
                };
                Ok(Term::Consolidate { spare_milli })
            }
            "guests-out" => {
                let inside = inside.ok_or_else(|| {
                    name.fault("guests-out without hosts", "write guests-out(HOST,HOST)")
                })?;
                Ok(Term::GuestsOut {
                    hosts: self.hosts(&inside)?,
                })
            }
            other => Err(name.fault(
                if other.is_empty() {
                    "a term is missing".to_owned()
                } else {
                    format!("no term is called `{other}`")
                },
                "known are balance consolidate(spare=10%) locality cost time guests-out(HOST,…) fair",
            )),
        }
    }

    fn hosts(&self, inside: &Value<'_>) -> Result<Vec<HostIx>, WorldError> {
        let mut hosts = Vec::new();
        for part in inside.list()? {
            let trimmed = part.raw.trim();
            let part = Value {
                raw: trimmed,
                ..part
            };
            let host = host_of(&part, self.world)?;
            if hosts.contains(&host) {
                return Err(part.fault(format!("{} is named twice", part.raw), "leave one out"));
            }
            hosts.push(host);
        }
        Ok(hosts)
    }

    /// What stands in brackets here, if there are any.
    fn brackets(&mut self) -> Result<Option<Value<'a>>, WorldError> {
        if !self.takes("(") {
            return Ok(None);
        }
        let (mut is_quoted, mut is_escaped) = (false, false);
        for (at, character) in self.text[self.at..].char_indices() {
            match character {
                _ if is_escaped => is_escaped = false,
                '\\' if is_quoted => is_escaped = true,
                '"' => is_quoted = !is_quoted,
                ')' if !is_quoted => {
                    let value = self.value(self.at, self.at + at);
                    self.at += at + 1;
                    return Ok(Some(value));
                }
                _ => {}
            }
        }
        Err(self
            .here()
            .fault("a bracket that does not end", "write the second )"))
    }

    /// What is left, without spaces before it.
    fn rest(&mut self) -> &'a str {
        let rest = &self.text[self.at..];
        let trimmed = rest.trim_start();
        self.at += rest.len() - trimmed.len();
        trimmed
    }

    fn takes(&mut self, word: &str) -> bool {
        let is_there = self.rest().starts_with(word);
        if is_there {
            self.at += word.len();
        }
        is_there
    }

    fn takes_then(&mut self) -> bool {
        let is_word = self
            .rest()
            .strip_prefix("then")
            .is_some_and(|rest| rest.starts_with([' ', '\t']));
        is_word && self.takes("then")
    }

    fn here(&mut self) -> Value<'a> {
        self.rest();
        self.value(self.at, self.text.len())
    }

    fn value(&self, from: usize, to: usize) -> Value<'a> {
        let before = self.text[..from].chars().count();
        Value {
            raw: &self.text[from..to],
            line: self.line,
            column: self
                .column
                .saturating_add(u32::try_from(before).unwrap_or(u32::MAX)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use estive_world::text;

    const WORLD: &str = "host h1\nhost \"h 2\"\n";

    fn objective(text: &str) -> Result<Objective, WorldError> {
        Objective::from_text(text, &World::from_text(WORLD).unwrap())
    }

    #[test]
    fn an_objective_is_ranks_of_weighted_terms() {
        let read =
            objective("guests-out(h1, \"h 2\") then 2*balance+cost*0.5,consolidate").unwrap();
        let weighted = |term, weight| Weighted { term, weight };
        assert_eq!(
            read.ranks,
            [
                vec![weighted(
                    Term::GuestsOut {
                        hosts: vec![HostIx(0), HostIx(1)]
                    },
                    1.0
                )],
                vec![weighted(Term::Balance, 2.0), weighted(Term::Cost, 0.5)],
                vec![weighted(Term::Consolidate { spare_milli: 100 }, 1.0)],
            ]
        );
        let world = World::from_text(WORLD).unwrap();
        let text = read.to_text(&world);
        assert_eq!(
            text,
            "guests-out(h1,\"h 2\") then 2*balance + 0.5*cost then consolidate(spare=10%)"
        );
        assert_eq!(objective(&text).unwrap(), read);
    }

    #[test]
    fn a_question_of_a_file_has_common_values_for_what_it_leaves_out() {
        let text = format!(
            "{WORLD}ask calm objective=\"fair then time\" moves=10 bytes=2G seed=7 budget=5000\nask\n"
        );
        let asked = asked(&text::read(&text).unwrap()).unwrap();
        assert_eq!(asked[0].name, "calm");
        assert_eq!(asked[0].line, 3);
        assert_eq!(asked[0].question.moves_at_most, Some(10));
        assert_eq!(asked[0].question.bytes_at_most, Some(2 << 30));
        assert_eq!(asked[0].question.budget.work, 5000);
        assert_eq!(asked[0].question.objective.ranks.len(), 2);
        assert_eq!(asked[1].question, Question::default());
        let common = Question {
            seed: 9,
            budget: Budget { work: 7000 },
            ..Question::default()
        };
        let asked = asked_or(&text::read(&text).unwrap(), &common).unwrap();
        assert_eq!(asked[0].question.budget.work, 5000);
        assert_eq!(asked[1].question, common);
    }

    #[test]
    fn what_is_wrong_is_said_where_it_is() {
        for (text, said) in [
            ("", "line 1, column 1: a term is missing"),
            (
                "balanced",
                "line 1, column 1: no term is called `balanced`; known are balance",
            ),
            ("balance cost", "column 9: `cost` is not understood"),
            ("balance then", "column 9: `then` is not understood"),
            ("balance, then cost", "no term is called `then`"),
            ("2 balance", "column 3: a weight without a term"),
            ("balance*x", "column 9: `` is no such number"),
            ("balance*1.2.3", "`1.2.3` is no such number"),
            ("balance(h1)", "column 9: balance takes nothing in brackets"),
            ("guests-out", "guests-out without hosts"),
            ("guests-out(h3)", "column 12: no host h3"),
            ("guests-out(h1,h1)", "column 15: h1 is named twice"),
            ("guests-out(h1", "a bracket that does not end"),
            ("consolidate(10%)", "write consolidate(spare=10%)"),
        ] {
            let fault = objective(text).unwrap_err().to_string();
            assert!(fault.contains(said), "{text}: {fault}");
        }
        let long = "balance+".repeat(40) + "balance";
        assert!(objective(&long).is_err());
        for text in [
            "ask lanes=0",
            "ask lanes=65",
            "ask seed=-1",
            "ask move=3",
            "ask a b",
        ] {
            assert!(asked(&text::read(text).unwrap()).is_err(), "{text}");
        }
        let fault = asked(&text::read("ask objective=\"cost,, time\"").unwrap()).unwrap_err();
        assert!(
            fault.to_string().starts_with("line 1, column 21:"),
            "{fault}"
        );
    }
}
