//! A parsed format: literal text and fields.

use super::field::Field;

/// A part of a format. `C` is the conversion type of its language.
#[derive(Debug)]
pub enum Piece<C> {
    Text(String),
    /// Without a conversion the value is shown as by Python's `str()`.
    Field(Field, Option<C>),
}

impl<C> Piece<C> {
    pub fn map<D>(self, make: impl FnOnce(C) -> D) -> Piece<D> {
        match self {
            Piece::Text(text) => Piece::Text(text),
            Piece::Field(field, conversion) => Piece::Field(field, conversion.map(make)),
        }
    }
}

/// The parts that a parser has found so far.
#[derive(Debug)]
pub struct Pieces<C> {
    done: Vec<Piece<C>>,
    /// Text since the last field.
    pub text: String,
}

impl<C> Pieces<C> {
    pub fn new() -> Pieces<C> {
        Pieces { done: Vec::new(), text: String::new() }
    }

    pub fn field(&mut self, field: Field, conversion: Option<C>) {
        self.end_text();
        self.done.push(Piece::Field(field, conversion));
    }

    fn end_text(&mut self) {
        if !self.text.is_empty() {
            self.done.push(Piece::Text(std::mem::take(&mut self.text)));
        }
    }

    pub fn finish(mut self) -> Vec<Piece<C>> {
        self.end_text();
        self.done
    }
}
