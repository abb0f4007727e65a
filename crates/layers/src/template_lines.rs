//! Which line of a template a line of its output comes from.
//!
//! The language keeps no record of it. So the template is rendered once more with a mark at the
//! start of each of its lines of text; where the output without marks is not what it was, because
//! a template looks at its own text, nothing is said.

use crate::templates;

/// Characters for private use (Unicode, section 23.5), which configuration files do not have.
const OPEN: char = '\u{f0f00}';
const CLOSE: char = '\u{f0f01}';

/// The template with marks; `None` when it has such characters itself.
pub(crate) fn marked(source: &str) -> Option<String> {
    if source.contains([OPEN, CLOSE]) {
        return None;
    }
    let mut out = String::with_capacity(source.len() * 2);
    let mut rest = source;
    let mut line = 1;
    // A mark would keep a tag that has its line to itself from taking the line with it.
    let mut mark_here = !begins_with_tag(rest);
    while let Some(next) = rest.chars().next() {
        if mark_here {
            out.push_str(&format!("{OPEN}{line}{CLOSE}"));
        }
        let tag = tag_length(rest);
        let taken = if tag > 0 { tag } else { next.len_utf8() };
        let (text, after) = rest.split_at(taken);
        out.push_str(text);
        line += text.matches('\n').count();
        rest = after;
        let ended_block = tag > 0 && text.ends_with("%}");
        mark_here = if ended_block {
            !rest.starts_with('\n') && !begins_with_tag(rest)
        } else {
            tag == 0 && next == '\n' && !begins_with_tag(rest)
        };
    }
    Some(out)
}

/// Whether the first thing on the line, after blanks, is a block or a comment.
fn begins_with_tag(text: &str) -> bool {
    let text = text.trim_start_matches([' ', '\t']);
    text.starts_with("{%") || text.starts_with("{#")
}

/// Bytes of the tag that begins here; 0 when none does.
fn tag_length(text: &str) -> usize {
    let (end, has_strings) = match text.as_bytes() {
        [b'{', b'{', ..] => ("}}", true),
        [b'{', b'%', ..] => ("%}", true),
        [b'{', b'#', ..] => ("#}", false),
        _ => return 0,
    };
    let mut quote = None;
    let mut escaped = false;
    for (at, character) in text.char_indices().skip(2) {
        if let Some(open) = quote {
            if !escaped && character == open {
                quote = None;
            }
            escaped = !escaped && character == '\\';
        } else if has_strings && matches!(character, '"' | '\'') {
            quote = Some(character);
        } else if text[at..].starts_with(end) {
            return at + end.len();
        }
    }
    text.len()
}

/// The template's line for each line of the output; `None` when the marks changed the output.
pub(crate) fn lines(marked_output: &str, output: &str) -> Option<Vec<usize>> {
    let mut plain = String::with_capacity(output.len());
    let mut lines = Vec::new();
    let (mut latest, mut of_this_line) = (1, None);
    let mut rest = marked_output;
    while let Some(next) = rest.chars().next() {
        if next == OPEN {
            let (number, after) = rest[OPEN.len_utf8()..].split_once(CLOSE)?;
            latest = number.parse().ok()?;
            of_this_line = of_this_line.or(Some(latest));
            rest = after;
            continue;
        }
        plain.push(next);
        rest = &rest[next.len_utf8()..];
        if next == '\n' {
            lines.push(of_this_line.unwrap_or(latest));
            of_this_line = None;
        }
    }
    if !output.is_empty() && !output.ends_with('\n') {
        lines.push(of_this_line.unwrap_or(latest));
    }
    (plain == output).then_some(lines)
}

/// Renders the template with marks and gives the line of each line of the output.
pub(crate) fn trace(
    name: &str,
    source: &str,
    output: &str,
    context: &minijinja::Value,
) -> Option<Vec<usize>> {
    let mut environment = templates::environment();
    templates::add(&mut environment, name, &marked(source)?).ok()?;
    let rendered = templates::render(&environment, name, "", context).ok()?;
    lines(std::str::from_utf8(&rendered).ok()?, output)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn traced(source: &str) -> Option<Vec<usize>> {
        let context = minijinja::context! { list => [1, 2], text => "a\nb\n", yes => true };
        let mut environment = templates::environment();
        templates::add(&mut environment, "t", source).unwrap();
        let output = templates::render(&environment, "t", "", &context).unwrap();
        let output = std::str::from_utf8(&output).unwrap();
        trace("t", source, output, &context)
    }

    #[test]
    fn each_line_knows_the_templates() {
        for (source, expected) in [
            ("a\nb\n", vec![1, 2]),
            ("a\nb", vec![1, 2]),
            ("", vec![]),
            (
                "# head\n{% for n in list %}\nitem {{ n }}\nmore\n{% endfor %}\nend\n",
                vec![1, 3, 4, 3, 4, 6],
            ),
            (
                "{# note\n note #}\nx\n{% if yes %}y{% endif %}\nz\n",
                // The block takes its newline with it.
                vec![3, 4],
            ),
            (
                "{% if yes %}\n  {{ text }}\n{% endif %}last",
                vec![2, 2, 2, 3],
            ),
            ("{{ [1,\n 2] | join('}}\n') }}\nlast\n", vec![1, 1, 4]),
            ("  {%- if yes %}\n\nx\n  {%- endif %}\ny\n", vec![2, 3]),
            ("{% raw %}\n{{ no }}\n{% endraw %}\nx\n", vec![2, 4]),
        ] {
            assert_eq!(traced(source), Some(expected), "{source:?}");
        }
    }

    #[test]
    fn what_looks_at_its_own_text_is_not_traced() {
        assert_eq!(
            traced("{% set x %}\nabc\n{% endset %}\n{{ x | length }}\n"),
            None
        );
        assert_eq!(traced(&format!("{OPEN}x\n")), None);
    }
}
