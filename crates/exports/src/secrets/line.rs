//! What one line of text holds, by its form.

/// A longer line is data: nobody wrote an assignment into it.
const LINE_BYTES_MAX: usize = 4096;

/// Tokens by what they begin with: the least length of what follows, and whose they are.
const TOKENS: &[(&[u8], usize, &str)] = &[
    (b"ghp_", 36, "token of GitHub"),
    (b"gho_", 36, "token of GitHub"),
    (b"ghs_", 36, "token of GitHub"),
    (b"ghu_", 36, "token of GitHub"),
    (b"github_pat_", 40, "token of GitHub"),
    (b"glpat-", 20, "token of GitLab"),
    (b"AKIA", 16, "access key of AWS"),
    (b"ASIA", 16, "access key of AWS"),
    (b"AIza", 35, "key of Google"),
    (b"ya29.", 40, "token of Google"),
    (b"xoxb-", 20, "token of Slack"),
    (b"xoxp-", 20, "token of Slack"),
    (b"xapp-", 20, "token of Slack"),
    (b"sk_live_", 20, "key of Stripe"),
    (b"rk_live_", 20, "key of Stripe"),
    (b"npm_", 36, "token of npm"),
    (b"pypi-AgEI", 40, "token of PyPI"),
    (b"dop_v1_", 60, "token of DigitalOcean"),
    (b"hvs.", 24, "token of Vault"),
    (b"SG.", 60, "key of SendGrid"),
    (b"sk-ant-", 40, "key of Anthropic"),
    (b"sk-proj-", 40, "key of OpenAI"),
    (b"AGE-SECRET-KEY-1", 50, "key of age"),
];

const KEY_WORDS: &[&[u8]] = &[b"password", b"passwd", b"passphrase", b"pwd"];
const SECRET_WORDS: &[&[u8]] = &[
    b"secret",
    b"token",
    b"apikey",
    b"api_key",
    b"api-key",
    b"accesskey",
    b"access_key",
    b"privatekey",
    b"private_key",
    b"presharedkey",
    b"credential",
];

/// What a value begins with that only names a secret, and words that stand where one is to be put.
const NAMES: &[&[u8]] = &[
    b"$", b"<", b"{", b"%", b"/", b"~", b"@", b"file:", b"env:", b"vault:", b"!",
];
const STAND_INS: &[&[u8]] = &[
    b"changeme",
    b"change_me",
    b"password",
    b"example",
    b"placeholder",
    b"xxxx",
    b"****",
    b"your",
    b"none",
    b"null",
    b"true",
    b"false",
    b"secret",
];

/// The kind of secret that a line seems to hold; `next` is the line behind it.
pub(super) fn kind(line: &[u8], next: Option<&[u8]>, hashes_belong: bool) -> Option<&'static str> {
    if is_key(line, next) {
        return Some("private key");
    }
    if line.len() > LINE_BYTES_MAX {
        return None;
    }
    token(line)
        .or_else(|| address(line))
        .or_else(|| (!hashes_belong && hash(line)).then_some("password hash"))
        .or_else(|| assignment(line))
}

/// The first line of a private key in PEM, with data behind it: programs name the line, too.
fn is_key(line: &[u8], next: Option<&[u8]>) -> bool {
    let line = line.trim_ascii();
    let Some(name) = line.strip_prefix(b"-----BEGIN ") else {
        return false;
    };
    let named = name.ends_with(b"PRIVATE KEY-----") || name == b"PGP PRIVATE KEY BLOCK-----";
    let next = next.unwrap_or_default().trim_ascii();
    let data = next.len() >= 32 && next.iter().all(|byte| is_base64(*byte));
    let head = next.is_empty() || next.starts_with(b"Proc-Type:") || next.starts_with(b"Version:");
    named && (data || head)
}

fn is_base64(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=')
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.')
}

fn token(line: &[u8]) -> Option<&'static str> {
    TOKENS.iter().find_map(|(start, length, kind)| {
        let mut from = 0;
        while let Some(found) = find(&line[from..], start) {
            let at = from + found;
            let alone = at == 0 || !is_word(line[at - 1]);
            let rest = &line[at + start.len()..];
            let long = rest.iter().take_while(|byte| is_word(**byte)).count();
            if alone && long >= *length && entropy(&rest[..long]) > 2.5 {
                return Some(*kind);
            }
            from = at + start.len();
        }
        None
    })
}

/// `scheme://name:password@`.
fn address(line: &[u8]) -> Option<&'static str> {
    let start = find(line, b"://")? + 3;
    let end = line[start..]
        .iter()
        .position(|byte| byte.is_ascii_whitespace() || matches!(byte, b'/' | b'"' | b'\''))
        .map_or(line.len(), |length| start + length);
    let (who, _) = split_once(&line[start..end], b'@')?;
    let (_, password) = split_once(who, b':')?;
    is_value(password, 6).then_some("password in an address")
}

/// `$6$…` and its kin (crypt(5)).
fn hash(line: &[u8]) -> bool {
    [
        b"$6$".as_slice(),
        b"$5$",
        b"$y$",
        b"$2b$",
        b"$2y$",
        b"$argon2",
    ]
    .iter()
    .any(|start| {
        find(line, start).is_some_and(|at| {
            let rest = line[at..].iter().take_while(|byte| {
                is_word(**byte) || matches!(byte, b'$' | b'/' | b'=' | b',' | b'+')
            });
            rest.count() >= 40
        })
    })
}

/// `NAME = value` or `NAME: value`, where the name speaks of a secret and the value is no word.
fn assignment(line: &[u8]) -> Option<&'static str> {
    let line = line.trim_ascii();
    if matches!(line.first()?, b'#' | b';') || line.starts_with(b"//") {
        return None;
    }
    let at = line.iter().position(|byte| matches!(byte, b'=' | b':'))?;
    let name = line[..at].trim_ascii();
    let name = name
        .rsplit(|byte| byte.is_ascii_whitespace())
        .next()?
        .to_ascii_lowercase();
    let value = line[at + 1..].trim_ascii();
    let value = value.strip_suffix(b",").unwrap_or(value);
    let value = value.strip_suffix(b";").unwrap_or(value);
    let quoted = matches!(value.first()?, b'"' | b'\'');
    let value: &[u8] = if quoted {
        let inner = &value[1..];
        &inner[..inner.iter().position(|byte| *byte == value[0])?]
    } else {
        value
    };
    let has = |words: &[&[u8]]| words.iter().any(|word| find(&name, word).is_some());
    if has(KEY_WORDS) {
        return (is_value(value, 8) && entropy(value) > 2.5).then_some("password");
    }
    (has(SECRET_WORDS) && is_value(value, 16) && entropy(value) > 3.0).then_some("secret")
}

/// Whether a value may be a secret, and does not name one or stand for one.
fn is_value(value: &[u8], least: usize) -> bool {
    let lower = value.to_ascii_lowercase();
    value.len() >= least
        && value.len() <= 512
        && value.iter().all(u8::is_ascii_graphic)
        && !NAMES.iter().any(|start| lower.starts_with(start))
        && !STAND_INS.iter().any(|word| find(&lower, word).is_some())
}

/// Bits for each byte, by how often each comes.
fn entropy(bytes: &[u8]) -> f64 {
    let mut counts = [0_u32; 256];
    for byte in bytes {
        counts[usize::from(*byte)] += 1;
    }
    let all = bytes.len().max(1) as f64;
    counts
        .iter()
        .filter(|count| **count > 0)
        .map(|count| {
            let share = f64::from(*count) / all;
            -share * share.log2()
        })
        .sum()
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    let first = *what.first()?;
    let mut from = 0;
    while let Some(at) = bytes[from..].iter().position(|byte| *byte == first) {
        if bytes[from + at..].starts_with(what) {
            return Some(from + at);
        }
        from += at + 1;
    }
    None
}

fn split_once(bytes: &[u8], at: u8) -> Option<(&[u8], &[u8])> {
    let place = bytes.iter().position(|byte| *byte == at)?;
    Some((&bytes[..place], &bytes[place + 1..]))
}
