//! `limit`, a parameter of every list.

use std::borrow::Cow;

use poem_openapi::{
    registry::{MetaSchema, MetaSchemaRef},
    types::{ParseFromParameter, ParseResult, ToJSON, Type},
};
use serde_json::Value;

use super::field;
use crate::problem::Problem;

/// How many entries a page has when nobody asks.
const ENTRIES_DEFAULT: u32 = 50;

/// How many entries a page may have: a whole number from 1 to `MAX`. What was given is read by [`Self::get`], not by
/// the framework, so that what is wrong with it is said in our words.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limit<const MAX: u32>(Option<u32>);

impl<const MAX: u32> Limit<MAX> {
    /// The number.
    pub(super) fn get(self) -> Result<u32, Problem> {
        let number = self.0.filter(|number| (1..=MAX).contains(number));
        number.ok_or_else(|| Problem::invalid(field("limit", format!("must be a whole number from 1 to {MAX}"))))
    }
}

impl<const MAX: u32> Default for Limit<MAX> {
    fn default() -> Self {
        Self(Some(ENTRIES_DEFAULT))
    }
}

impl<const MAX: u32> ParseFromParameter for Limit<MAX> {
    fn parse_from_parameter(value: &str) -> ParseResult<Self> {
        // Digits only: "+5" is a space and a five in a URL.
        let digits = value.bytes().all(|byte| byte.is_ascii_digit());
        Ok(Self(value.parse().ok().filter(|_| digits)))
    }
}

impl<const MAX: u32> Type for Limit<MAX> {
    const IS_REQUIRED: bool = false;
    type RawValueType = Self;
    type RawElementValueType = Self;

    fn name() -> Cow<'static, str> {
        format!("limit_{MAX}").into()
    }

    fn schema_ref() -> MetaSchemaRef {
        let schema = MetaSchema {
            minimum: Some(1.0),
            maximum: Some(f64::from(MAX)),
            default: Some(ENTRIES_DEFAULT.into()),
            ..MetaSchema::new_with_format("integer", "uint32")
        };
        MetaSchemaRef::Inline(Box::new(schema))
    }

    fn as_raw_value(&self) -> Option<&Self> {
        Some(self)
    }

    fn raw_element_iter<'a>(&'a self) -> Box<dyn Iterator<Item = &'a Self> + 'a> {
        Box::new(std::iter::once(self))
    }
}

impl<const MAX: u32> ToJSON for Limit<MAX> {
    fn to_json(&self) -> Option<Value> {
        self.0.map(Value::from)
    }
}
