//! A small XML document as a tree, every element with its place: enough to refuse what is not known by name and line.

use super::DomainXmlError;
use quick_xml::Reader;
use quick_xml::events::{BytesStart, Event};

const MAX_BYTES: usize = 64 * 1024;
const MAX_ELEMENTS: usize = 512;
const MAX_DEPTH: usize = 12;

/// Line and column, both from 1; the column counts bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub line: usize,
    pub column: usize,
}

#[derive(Debug)]
pub(super) struct Element {
    pub name: String,
    pub place: Place,
    attributes: Vec<(String, String)>,
    children: Vec<Element>,
    text: String,
}

impl Element {
    /// The only element of a document. No DTD, no processing instruction, bounded in every way.
    pub(super) fn read(text: &str) -> Result<Self, DomainXmlError> {
        let mut elements = 0;
        let mut open: Vec<Element> = Vec::new();
        let mut root = None;
        if text.len() > MAX_BYTES {
            return Err(DomainXmlError::new(
                Place { line: 1, column: 1 },
                format!("the document is larger than {MAX_BYTES} bytes"),
            ));
        }
        let mut reader = Reader::from_str(text);
        loop {
            let place = place_of(text, reader.buffer_position());
            let wrong = |reason: String| DomainXmlError::new(place, reason);
            let event = reader
                .read_event()
                .map_err(|error| wrong(format!("it is not well formed: {error}")))?;
            let finished = match event {
                Event::Start(tag) | Event::Empty(tag)
                    if elements >= MAX_ELEMENTS || open.len() >= MAX_DEPTH =>
                {
                    return Err(wrong(format!(
                        "<{}> is one element too many (at most {MAX_ELEMENTS}, {MAX_DEPTH} deep)",
                        shown(tag.name().into_inner())
                    )));
                }
                Event::Start(tag) => {
                    elements += 1;
                    open.push(Element::begin(&tag, place)?);
                    None
                }
                Event::Empty(tag) => {
                    elements += 1;
                    Some(Element::begin(&tag, place)?)
                }
                Event::End(_) => open.pop(),
                Event::Text(more) => {
                    add_text(&mut open, &more.xml10_content(), place)?;
                    None
                }
                Event::CData(more) => {
                    add_text(&mut open, &more.xml10_content(), place)?;
                    None
                }
                Event::GeneralRef(reference) => {
                    let known = match &*reference.xml10_content() {
                        "lt" => Some('<'),
                        "gt" => Some('>'),
                        "amp" => Some('&'),
                        "apos" => Some('\''),
                        "quot" => Some('"'),
                        _ => reference
                            .resolve_char_ref()
                            .map_err(|error| wrong(error.to_string()))?,
                    };
                    let known = known.ok_or_else(|| {
                        wrong("an entity is used that XML itself does not define".to_owned())
                    })?;
                    add_text(&mut open, &known.to_string(), place)?;
                    None
                }
                Event::Comment(_) | Event::Decl(_) => None,
                Event::PI(_) => {
                    return Err(wrong(
                        "a processing instruction is not taken here".to_owned(),
                    ));
                }
                Event::DocType(_) => {
                    return Err(wrong(
                        "a document type definition is not taken here".to_owned(),
                    ));
                }
                Event::Eof if open.is_empty() => {
                    return root.ok_or_else(|| wrong("there is no element in it".to_owned()));
                }
                Event::Eof => return Err(wrong("it ends within an element".to_owned())),
            };
            let Some(finished) = finished else { continue };
            match open.last_mut() {
                Some(parent) => parent.children.push(finished),
                None if root.is_none() => root = Some(finished),
                None => {
                    return Err(DomainXmlError::new(
                        finished.place,
                        format!("<{}> stands beside the document's element", finished.name),
                    ));
                }
            }
        }
    }

    fn begin(tag: &BytesStart<'_>, place: Place) -> Result<Self, DomainXmlError> {
        let mut attributes = Vec::new();
        for attribute in tag.attributes() {
            let attribute = attribute.map_err(|error| {
                DomainXmlError::new(
                    place,
                    format!("<{}>: {error}", shown(tag.name().into_inner())),
                )
            })?;
            let value = attribute
                .normalized_value(quick_xml::XmlVersion::Explicit1_0)
                .map_err(|error| {
                    DomainXmlError::new(
                        place,
                        format!("<{}>: {error}", shown(tag.name().into_inner())),
                    )
                })?;
            attributes.push((
                shown(attribute.key.into_inner()).into_owned(),
                value.into_owned(),
            ));
        }
        Ok(Self {
            name: shown(tag.name().into_inner()).into_owned(),
            place,
            attributes,
            children: Vec::new(),
            text: String::new(),
        })
    }

    pub(super) fn wrong(&self, reason: impl std::fmt::Display) -> DomainXmlError {
        DomainXmlError::new(self.place, format!("<{}> {reason}", self.name))
    }

    /// Refuses every attribute and child that is not named here, and children that come twice unless in `repeated`.
    pub(super) fn only(
        &self,
        attributes: &[&str],
        children: &[&str],
        repeated: &[&str],
    ) -> Result<(), DomainXmlError> {
        self.only_attributes(attributes)?;
        for (index, child) in self.children.iter().enumerate() {
            let name = child.name.as_str();
            if repeated.contains(&name) {
                continue;
            }
            if !children.contains(&name) {
                return Err(child.wrong(format!(
                    "is not part of the subset that is understood within <{}>",
                    self.name
                )));
            }
            if self.children[..index]
                .iter()
                .any(|before| before.name == name)
            {
                return Err(child.wrong(format!("comes twice within <{}>", self.name)));
            }
        }
        if self.text.trim().is_empty() {
            Ok(())
        } else {
            Err(self.wrong("has text where none is understood"))
        }
    }

    /// Like [`Element::only`], for an element that holds text and no other elements.
    pub(super) fn only_text(&self, attributes: &[&str]) -> Result<(), DomainXmlError> {
        self.only_attributes(attributes)?;
        match self.children.first() {
            None => Ok(()),
            Some(child) => {
                Err(child.wrong(format!("stands within <{}>, which holds text", self.name)))
            }
        }
    }

    fn only_attributes(&self, known: &[&str]) -> Result<(), DomainXmlError> {
        match self
            .attributes
            .iter()
            .find(|(name, _)| !known.contains(&name.as_str()))
        {
            None => Ok(()),
            Some((name, _)) => Err(self.wrong(format!(
                "has the attribute {name:?}, which is not known here"
            ))),
        }
    }

    /// Exactly these attributes with these values, no children, no text.
    pub(super) fn is_exactly(&self, attributes: &[(&str, &str)]) -> Result<(), DomainXmlError> {
        let names: Vec<&str> = attributes.iter().map(|(name, _)| *name).collect();
        self.only(&names, &[], &[])?;
        for (name, value) in attributes {
            self.attribute_is(name, value)?;
        }
        Ok(())
    }

    pub(super) fn attribute(&self, name: &str) -> Result<&str, DomainXmlError> {
        self.attribute_if_any(name)
            .ok_or_else(|| self.wrong(format!("lacks the attribute {name:?}")))
    }

    pub(super) fn attribute_if_any(&self, name: &str) -> Option<&str> {
        self.attributes
            .iter()
            .find(|(given, _)| given == name)
            .map(|(_, value)| value.as_str())
    }

    pub(super) fn attribute_is(&self, name: &str, wanted: &str) -> Result<(), DomainXmlError> {
        match self.attribute(name)? {
            given if given == wanted => Ok(()),
            given => Err(self.wrong(format!(
                "has {name}={:?}; only {wanted:?} is understood",
                given.chars().take(80).collect::<String>()
            ))),
        }
    }

    pub(super) fn child(&self, name: &str) -> Result<&Element, DomainXmlError> {
        self.child_if_any(name)
            .ok_or_else(|| self.wrong(format!("lacks <{name}>")))
    }

    pub(super) fn child_if_any(&self, name: &str) -> Option<&Element> {
        self.children.iter().find(|child| child.name == name)
    }

    pub(super) fn children<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Element> {
        self.children.iter().filter(move |child| child.name == name)
    }

    /// Text of an element without children, without the white space around it.
    pub(super) fn text(&self) -> Result<&str, DomainXmlError> {
        match self.text.trim() {
            "" => Err(self.wrong("is empty")),
            text => Ok(text),
        }
    }
}

fn add_text(open: &mut [Element], more: &str, place: Place) -> Result<(), DomainXmlError> {
    match open.last_mut() {
        Some(element) => {
            element.text.push_str(more);
            Ok(())
        }
        None if more.trim().is_empty() => Ok(()),
        None => Err(DomainXmlError::new(
            place,
            "there is text outside the document's element".to_owned(),
        )),
    }
}

fn shown(name: &str) -> std::borrow::Cow<'_, str> {
    match name.char_indices().nth(80) {
        Some((end, _)) => name[..end].to_owned().into(),
        None => name.into(),
    }
}

fn place_of(text: &str, offset: u64) -> Place {
    let end = usize::try_from(offset)
        .unwrap_or(usize::MAX)
        .min(text.len());
    let before = &text.as_bytes()[..end];
    let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
    let column = before
        .iter()
        .rev()
        .take_while(|byte| **byte != b'\n')
        .count()
        + 1;
    Place { line, column }
}
