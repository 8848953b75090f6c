//! The fields of a log entry that a format can name, and the kind of value that each has.

use super::value::FieldValue;

/// A field that a format may name; the names are those of Python's `LogRecord`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Field {
    Name,
    LevelName,
    LevelNumber,
    PathName,
    FileName,
    Module,
    Line,
    Function,
    Created,
    Time,
    Msecs,
    Age,
    Thread,
    ThreadName,
    Process,
    ProcessName,
    Message,
    /// `exc_info` and similar fields, always `None`: exceptions are part of the message here.
    Nothing,
    /// `args`, always `()`: the message is complete here.
    Arguments,
}

/// The kind of value that a field has; it decides which conversions are allowed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum FieldType {
    Text,
    Integer,
    Float,
    Opaque,
}

impl Field {
    /// Finds the field by its name.
    ///
    /// An unknown name is refused even with `arbitrary-fields`: Python accepts it, and then loses every line.
    pub fn named(name: &str) -> Result<Field, String> {
        Field::from_name(name).ok_or_else(|| {
            let mut quoted = String::new();
            FieldValue::text(name).repr(false, &mut quoted);
            format!("there is no field {quoted} in a log record")
        })
    }

    fn from_name(name: &str) -> Option<Field> {
        Some(match name {
            "name" => Field::Name,
            "levelname" => Field::LevelName,
            "levelno" => Field::LevelNumber,
            "pathname" => Field::PathName,
            "filename" => Field::FileName,
            "module" => Field::Module,
            "lineno" => Field::Line,
            "funcName" => Field::Function,
            "created" => Field::Created,
            "asctime" => Field::Time,
            "msecs" => Field::Msecs,
            "relativeCreated" => Field::Age,
            "thread" => Field::Thread,
            "threadName" => Field::ThreadName,
            "process" => Field::Process,
            "processName" => Field::ProcessName,
            "message" | "msg" => Field::Message,
            "exc_info" | "exc_text" | "stack_info" => Field::Nothing,
            "args" => Field::Arguments,
            _ => return None,
        })
    }

    pub fn kind(self) -> FieldType {
        match self {
            Field::LevelNumber | Field::Line | Field::Thread | Field::Process => FieldType::Integer,
            Field::Created | Field::Msecs | Field::Age => FieldType::Float,
            Field::Nothing | Field::Arguments => FieldType::Opaque,
            Field::Name
            | Field::LevelName
            | Field::PathName
            | Field::FileName
            | Field::Module
            | Field::Function
            | Field::Time
            | Field::ThreadName
            | Field::ProcessName
            | Field::Message => FieldType::Text,
        }
    }
}
