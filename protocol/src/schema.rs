//! What the checks ask of a value, said as JSON Schema, so that the OpenAPI document tells callers before they are refused.
//!
//! A schema counts characters where the checks count bytes, so it is the looser one for text beyond ASCII.

use crate::limits;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use std::borrow::Cow;

/// Text that is not U+0000 anywhere.
const TEXT: &str = r"^[^\u0000]*$";

/// One line of text without blanks at its ends.
pub(crate) struct Name;
/// A program and its arguments.
pub(crate) struct Command;
/// Variables by their POSIX names, none of them the platform's.
pub(crate) struct Env;
/// Text without U+0000.
pub(crate) struct Text;

impl JsonSchema for Name {
    fn schema_name() -> Cow<'static, str> {
        "Name".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string", "minLength": 1, "maxLength": limits::MAX_NAME_BYTES,
            "pattern": r"^[^\s\u0000-\u001f\u007f-\u009f]([^\u0000-\u001f\u007f-\u009f]*[^\s\u0000-\u001f\u007f-\u009f])?$",
        })
    }
}

impl JsonSchema for Command {
    fn schema_name() -> Cow<'static, str> {
        "Command".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "array", "minItems": 1,
            "prefixItems": [{ "type": "string", "minLength": 1, "pattern": TEXT }],
            "items": { "type": "string", "pattern": TEXT },
        })
    }
}

impl JsonSchema for Env {
    fn schema_name() -> Cow<'static, str> {
        "Env".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "object",
            "propertyNames": { "pattern": "^(?!JOBPLANE_)[A-Za-z_][A-Za-z0-9_]*$" },
            "additionalProperties": { "type": "string", "pattern": TEXT },
        })
    }
}

impl JsonSchema for Text {
    fn schema_name() -> Cow<'static, str> {
        "Text".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": TEXT })
    }
}
