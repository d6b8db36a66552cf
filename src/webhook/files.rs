//! `NewFileUploaded`: files were added to a case.

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use super::{Made, case, schema};
use crate::event::{
    Rejection,
    field::Field,
    values::{Id, Text},
};

/// Files were added to a case.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct NewFileUploaded<'a> {
    /// The case's id.
    guid: Id<'a>,
    #[schemars(length(min = 1))]
    files: Vec<File<'a>>,
}

/// One file.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields, inline)]
struct File<'a> {
    url: Text<'a>,
    name: Text<'a>,
}

pub(super) fn map(data: &Field<'_, '_>) -> Result<Made, Rejection> {
    let [case, files] = data.members(["case", "files"])?;
    let (guid, audience) = case::read(&case)?;
    let payload = NewFileUploaded {
        guid,
        files: files.read_items(|file| read_file(&file))?,
    };
    if payload.files.is_empty() {
        return Err(files.empty("at least one file"));
    }
    Made::new(&payload, audience)
}

fn read_file<'a>(file: &Field<'a, '_>) -> Result<File<'a>, Rejection> {
    let [url, name] = file.members(["url", "name"])?;
    Ok(File {
        url: url.read()?,
        name: name.read()?,
    })
}

pub(super) fn data_schema() -> Value {
    let file = schema::required([
        ("url", schema::of::<Text<'_>>()),
        ("name", schema::of::<Text<'_>>()),
    ]);
    let mut files = schema::array(&file);
    files["minItems"] = 1.into();
    schema::required([("case", case::data_schema()), ("files", files)])
}
