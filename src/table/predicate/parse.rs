//! From text to tests: the grammar, and what each comparison means for the types of its sides.
//!
//! Descent by hand, one function for each level that binds more closely. Only parentheses recurse, at most
//! [`DEEPEST`] times: chains of any length are loops. `negated` is handed down, so that
//! what comes up has its `not` at the leaves already.

use std::collections::HashMap;
use std::fmt::{self, Display};

use ahash::RandomState;
use arrow_schema::{DataType, Schema};
use sqlparser::dialect::Dialect;
use sqlparser::tokenizer::{Location, Token, TokenWithSpan, Tokenizer, Whitespace, Word};

use super::literal::{self, Floor, Moment, Number, Pattern, Simple};
use super::{Kind, Leaf, Node, Op, Test, Values};
use crate::error::{Error, Result};

/// Tokens take a hundred times the memory of their text.
const LONGEST_BYTES: usize = 1 << 20;
const DEEPEST: usize = 100;
/// So many names or characters are shown in a message.
const SHOWN_NAMES: usize = 30;
const SHOWN_CHARS: usize = 40;

/// What pandas' `str.contains` does not take for itself.
const REGEX: [char; 14] = ['.', '^', '$', '*', '+', '?', '{', '}', '[', ']', '\\', '|', '(', ')'];

/// How a predicate falls into tokens: names of any script, in "double quotes" or in `backticks`.
#[derive(Debug)]
struct Spelling;

impl Dialect for Spelling {
    fn is_identifier_start(&self, char: char) -> bool {
        char.is_alphabetic() || char == '_'
    }

    fn is_identifier_part(&self, char: char) -> bool {
        // Marks are parts of words in many scripts, and alphanumeric in few.
        char.is_alphanumeric() || char == '_' || !char.is_ascii() && !char.is_whitespace()
    }
}

pub(super) fn parse(text: &str, schema: &Schema) -> Result<Node> {
    if text.len() > LONGEST_BYTES {
        return Err(Error::invalid(format!(
            "expected a predicate of at most {LONGEST_BYTES} bytes, got {}; a long list of rows is \
             better passed as filter",
            text.len()
        )));
    }
    let mut tokens = Tokenizer::new(&Spelling, text).tokenize_with_location().map_err(|error| {
        let message = error.message.to_lowercase();
        let unterminated = message.contains("unterminated string");
        let advice = if unterminated { "; a quote inside of a text is doubled" } else { "" };
        fail(Some(error.location), format!("{}{advice}", message.trim_end_matches('.')))
    })?;
    tokens.retain(|token| {
        use Whitespace::{Newline, Space, Tab};
        !matches!(token.token, Token::Whitespace(Space | Newline | Tab))
    });
    if let Some(token) = tokens.iter().find(|t| matches!(t.token, Token::Whitespace(_))) {
        return Err(fail(Some(token.span.start), "comments have no place in a predicate"));
    }
    if tokens.is_empty() {
        return Err(Error::invalid("expected a predicate, got an empty text"));
    }
    let mut parser = Parser { tokens, at: 0, mark: 0, depth: 0, schema };
    let item = parser.any(false)?;
    let node = parser.condition(item, false)?;
    match parser.peek() {
        None => Ok(node),
        Some(Token::RParen) => Err(parser.error("a parenthesis is closed that was not opened")),
        Some(_) => Err(parser.expected("and, or, or the end")),
    }
}

struct Parser<'a> {
    tokens: Vec<TokenWithSpan>,
    at: usize,
    /// Where the last column or value began: what a complaint about it points to.
    mark: usize,
    depth: usize,
    schema: &'a Schema,
}

/// What an expression may be.
enum Item {
    Operand(Operand),
    Condition(Node),
}

/// What may stand on a side of a comparison.
#[derive(Debug, Clone)]
enum Operand {
    Column(usize),
    /// In double quotes: the column if there is one, or a text.
    Quoted {
        text: String,
        column: Option<usize>,
        at: usize,
    },
    Text(String),
    Number(Number, String),
    Bool(bool),
    Null,
}

impl Display for Operand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Column(_) => f.write_str("a column"),
            Self::Quoted { text, .. } => write!(f, "\"{}\"", shown(text)),
            Self::Text(text) => write!(f, "the text '{}'", shown(text)),
            Self::Number(_, text) => write!(f, "the number {}", shown(text)),
            Self::Bool(value) => write!(f, "{value}"),
            Self::Null => f.write_str("null"),
        }
    }
}

/// A literal in the terms of a column.
enum Value {
    Exact(Floor),
    Float(f64),
    Text(String),
    Bool(bool),
}

/// The grammar.
impl Parser<'_> {
    fn any(&mut self, negated: bool) -> Result<Item> {
        let first = self.all(negated)?;
        if !self.is_or() {
            return Ok(first);
        }
        let mut nodes = vec![self.condition(first, negated)?];
        while self.is_or() {
            self.at += 1;
            let next = self.all(negated)?;
            nodes.push(self.condition(next, negated)?);
        }
        Ok(Item::Condition(group(nodes, !negated)))
    }

    fn all(&mut self, negated: bool) -> Result<Item> {
        let first = self.not(negated)?;
        if !self.is_and() {
            return Ok(first);
        }
        let mut nodes = vec![self.condition(first, negated)?];
        while self.is_and() {
            self.at += 1;
            let next = self.not(negated)?;
            nodes.push(self.condition(next, negated)?);
        }
        Ok(Item::Condition(group(nodes, negated)))
    }

    fn not(&mut self, mut negated: bool) -> Result<Item> {
        if !self.is_word("not") {
            return self.comparison(negated);
        }
        while self.take_word("not") {
            negated = !negated;
        }
        let item = self.comparison(negated)?;
        Ok(Item::Condition(self.condition(item, negated)?))
    }

    fn comparison(&mut self, negated: bool) -> Result<Item> {
        let start = self.at;
        let left = self.atom(negated)?;
        let is_tilde = matches!(self.tokens[start].token, Token::Tilde);
        let not_in = self.is_word("not");
        let verb = if not_in { self.word_at(self.at + 1) } else { self.word_at(self.at) };
        let verb = ["in", "between", "like", "ilike", "is"].into_iter().find(|known| {
            verb.is_some_and(|verb| verb.eq_ignore_ascii_case(known)) && !(not_in && *known == "is")
        });
        if verb.is_none() && self.operator().is_none() {
            let is_end = matches!(self.peek(), None | Some(Token::RParen));
            return match left {
                Item::Operand(_) if !(is_end || self.is_and() || self.is_or()) => {
                    Err(self.expected("a comparison"))
                }
                left => Ok(left),
            };
        }
        let left = match left {
            Item::Operand(operand) => operand,
            Item::Condition(_) if is_tilde => {
                return Err(self.error(
                    "~ binds to what follows it alone, so this compares a condition; write not before \
                     the comparison, or put the comparison into parentheses",
                ));
            }
            Item::Condition(_) => {
                return Err(
                    self.error("a condition is compared, where a column or a value is expected")
                );
            }
        };
        let Some(verb) = verb else {
            return self.chain(left, negated);
        };
        self.at += 1 + usize::from(not_in);
        let node = match verb {
            "is" => self.is(&left, negated)?,
            "in" => {
                let column = self.column(&left)?;
                self.list(column, negated != not_in)?
            }
            "between" => {
                let low = self.operand()?;
                if !self.take_word("and") {
                    return Err(self.expected("the and of between"));
                }
                let high = self.operand()?;
                self.between(&left, &low, &high, negated != not_in)?
            }
            verb => {
                let column = self.column(&left)?;
                self.like(column, verb == "ilike", negated != not_in)?
            }
        };
        Ok(Item::Condition(node))
    }

    /// `a < b`, and Python's `a < b <= c`, which is `a < b and b <= c`.
    fn chain(&mut self, left: Operand, negated: bool) -> Result<Item> {
        let (mut left, mut nodes) = (left, vec![]);
        let mut has_truth = self.is_truth(&left);
        while let Some(op) = self.operator() {
            self.at += 1;
            let right = self.operand()?;
            has_truth |= self.is_truth(&right);
            nodes.push(self.compare(&left, op, &right, negated)?);
            left = right;
        }
        if nodes.len() > 1 && has_truth {
            return Err(self.wrong(
                "a chain of comparisons with true, false or a column of booleans means one thing in \
                 SQL and another in Python; join single comparisons by and",
            ));
        }
        Ok(Item::Condition(group(nodes, negated)))
    }

    /// What follows `is`.
    fn is(&mut self, left: &Operand, negated: bool) -> Result<Node> {
        let column = self.column(left)?;
        let negated = negated != self.take_word("not");
        let value = match self.operand()? {
            Operand::Null => None,
            Operand::Bool(value) if self.kind(column) == Kind::Bool => Some(value),
            _ => {
                self.at = self.mark;
                return Err(
                    self.expected("null after is, or true or false after a column of booleans")
                );
            }
        };
        Ok(leaf(column, Test::Is(value), negated))
    }

    /// The values that follow `in`, in parentheses or brackets; a comma may end them, as in Python.
    fn list(&mut self, column: usize, negated: bool) -> Result<Node> {
        let end = match self.peek() {
            Some(Token::LParen) => Token::RParen,
            Some(Token::LBracket) => Token::RBracket,
            _ => return Err(self.expected("values in parentheses or brackets after in")),
        };
        self.at += 1;
        let mut nodes = vec![];
        while self.peek() != Some(&end) {
            let operand = self.operand()?;
            let value = self.value(column, operand)?;
            // One node for all, but of booleans one each.
            match nodes.last_mut() {
                Some(Node::Leaf(Leaf { test: Test::Among(values), .. })) => values.push(value),
                _ => nodes.push(equals(column, value, negated)),
            }
            if !self.take(&Token::Comma) && self.peek() != Some(&end) {
                return Err(self.expected(&format!("a comma or {end}")));
            }
        }
        self.at += 1;
        Ok(if nodes.is_empty() { Node::Fixed(negated) } else { group(nodes, !negated) })
    }

    fn between(&self, x: &Operand, low: &Operand, high: &Operand, negated: bool) -> Result<Node> {
        self.column(x)?;
        let low = self.compare(x, Op::Ge, low, negated)?;
        let high = self.compare(x, Op::Le, high, negated)?;
        Ok(group(vec![low, high], negated))
    }

    /// The pattern that follows `like`.
    fn like(&mut self, column: usize, any_case: bool, negated: bool) -> Result<Node> {
        let operand = self.operand()?;
        let text = self.text(column, operand)?;
        let mut escape = None;
        if self.take_word("escape") {
            let Operand::Text(written) = self.operand()? else {
                self.at = self.mark;
                return Err(self.expected("a text of one character after escape"));
            };
            let mut chars = written.chars();
            escape = chars.next();
            if chars.next().is_some() {
                self.at = self.mark;
                return Err(self.expected("a text of one character after escape"));
            }
        } else if text.contains('\\') {
            return Err(self.wrong(
                "a backslash in a pattern escapes in some dialects and not in others; add escape '\\' \
                 if it does, or escape '' if it stands for itself",
            ));
        }
        let Some(pattern) = Pattern::parse(&text, escape, any_case) else {
            return Err(self.wrong("the escape of a pattern must stand before %, _ or itself"));
        };
        let test = match pattern.simple() {
            Some(Simple::Equals(text)) => Test::Among(Values::Text(vec![text])),
            Some(Simple::StartsWith(text)) => Test::StartsWith(text),
            Some(Simple::EndsWith(text)) => Test::EndsWith(text),
            Some(Simple::Contains(text)) => Test::Contains(text),
            None => Test::Like(pattern),
        };
        Ok(leaf(column, test, negated))
    }

    /// A column or a value.
    fn operand(&mut self) -> Result<Operand> {
        let start = self.at;
        match self.atom(false)? {
            Item::Operand(operand) => Ok(operand),
            Item::Condition(_) => {
                self.at = start;
                Err(self.expected("a column or a value"))
            }
        }
    }

    fn atom(&mut self, mut negated: bool) -> Result<Item> {
        let is_tilde = self.peek() == Some(&Token::Tilde);
        while self.take(&Token::Tilde) {
            negated = !negated;
        }
        let item = self.bare_atom(negated)?;
        let arithmetic = match self.peek() {
            Some(Token::DoubleColon) => Some("casts have no place in a predicate"),
            Some(Token::LBracket) => Some("a predicate looks at whole values, not into them"),
            Some(Token::Overlap) => Some("write and for &&"),
            Some(Token::StringConcat) => Some("write or for ||; predicates do not join texts"),
            Some(
                Token::Plus
                | Token::Minus
                | Token::Mul
                | Token::Div
                | Token::DuckIntDiv
                | Token::Mod
                | Token::Caret
                | Token::ShiftLeft
                | Token::ShiftRight,
            ) => Some("predicates do not calculate; add a column with the result to the table"),
            _ => None,
        };
        match (arithmetic, item) {
            (Some(message), _) => Err(self.error(message)),
            (None, item) if is_tilde => Ok(Item::Condition(self.condition(item, negated)?)),
            (None, item) => Ok(item),
        }
    }

    fn bare_atom(&mut self, negated: bool) -> Result<Item> {
        self.mark = self.at;
        let operand = match self.peek() {
            Some(Token::LParen) => {
                if self.depth == DEEPEST {
                    return Err(self.error(&format!("parentheses are deeper than {DEEPEST}")));
                }
                self.at += 1;
                self.depth += 1;
                let item = self.any(negated)?;
                self.depth -= 1;
                if !self.take(&Token::RParen) {
                    return Err(self.expected("and, or, or )"));
                }
                return Ok(item);
            }
            Some(Token::Word(_)) => return self.name(negated),
            Some(Token::SingleQuotedString(text)) => Operand::Text(text.clone()),
            Some(Token::Number(..)) => self.number(false)?,
            Some(Token::Plus | Token::Minus) => {
                let negative = self.peek() == Some(&Token::Minus);
                self.at += 1;
                if !matches!(self.peek(), Some(Token::Number(..))) {
                    return Err(self.expected("a number after the sign"));
                }
                self.number(negative)?
            }
            Some(Token::AtSign) => {
                return Err(self.error(
                    "@ names a value of Python, which a predicate cannot see; write the value",
                ));
            }
            Some(Token::LBracket) => {
                return Err(self.error("a list of values comes after in, as in x in [1, 2]"));
            }
            Some(Token::ExclamationMark) => return Err(self.error("write not for !")),
            _ => return Err(self.expected("a column or a value")),
        };
        self.at += 1;
        Ok(Item::Operand(operand))
    }

    fn number(&self, negative: bool) -> Result<Operand> {
        let Some(Token::Number(text, false)) = self.peek() else {
            return Err(self.expected("a number of digits alone"));
        };
        match Number::parse(text, negative) {
            Some(number) => {
                let sign = if negative { "-" } else { "" };
                Ok(Operand::Number(number, format!("{sign}{text}")))
            }
            None => Err(self.expected("a number")),
        }
    }

    /// What begins with a word: a column, `true`, `false`, `null`, a function or a method.
    fn name(&mut self, negated: bool) -> Result<Item> {
        let start = self.at;
        let mut path: Vec<Word> = vec![];
        while let Some(Token::Word(word)) = self.peek() {
            path.push(word.clone());
            self.at += 1;
            if !self.take(&Token::Period) {
                break;
            }
            if !matches!(self.peek(), Some(Token::Word(_))) {
                return Err(self.expected("a name after the dot"));
            }
        }
        if self.peek() == Some(&Token::LParen) {
            return self.call(start, &path, negated).map(Item::Condition);
        }
        let [word] = &path[..] else {
            let name = joined(&path);
            let column = self.find(&name)?.ok_or_else(|| self.unknown(start, &name, true))?;
            return Ok(Item::Operand(Operand::Column(column)));
        };
        let column = self.find(&word.value)?;
        Ok(Item::Operand(match (word.quote_style, column) {
            (Some('"'), column) => Operand::Quoted { text: word.value.clone(), column, at: start },
            (Some(_), Some(column)) => Operand::Column(column),
            (Some(_), None) => return Err(self.unknown(start, &word.value, false)),
            (None, column) => match &*word.value.to_ascii_lowercase() {
                "true" => Operand::Bool(true),
                "false" => Operand::Bool(false),
                "null" => Operand::Null,
                "and" | "or" | "not" | "in" | "is" | "between" | "like" | "ilike" => {
                    self.at = start;
                    return Err(self.expected("a column or a value"));
                }
                lower => match column {
                    Some(column) => Operand::Column(column),
                    None if lower == "none" => Operand::Null,
                    None => return Err(self.unknown(start, &word.value, true)),
                },
            },
        }))
    }

    /// A function of a column, or a method of it as in pandas; its parenthesis comes next.
    fn call(&mut self, start: usize, path: &[Word], negated: bool) -> Result<Node> {
        let (function, owner) = path.split_last().expect("a name was read");
        let is_str = |word: &Word| word.quote_style.is_none() && word.value == "str";
        let name = function.value.to_ascii_lowercase();
        let name = if function.quote_style.is_none() { &*name } else { "" };
        let known = [
            "startswith",
            "starts_with",
            "endswith",
            "ends_with",
            "contains",
            "isnull",
            "isna",
            "notnull",
            "notna",
            "isin",
            "between",
        ];
        if !known.contains(&name) || owner.is_empty() && matches!(name, "isin" | "between") {
            self.at = start;
            return Err(self.error(&format!(
                "there is no function {}; there are startswith, endswith, contains, isnull and notnull, \
                 and the methods isin and between",
                shown(&function.value)
            )));
        }
        self.at += 1;
        let mut is_regex = false;
        let column = if owner.is_empty() {
            let operand = self.operand()?;
            self.column(&operand)?
        } else {
            let whole = joined(owner);
            let (last, rest) = owner.split_last().expect("it has an owner");
            let column = self.find(&whole)?;
            let short =
                if rest.is_empty() || !is_str(last) { None } else { self.find(&joined(rest))? };
            is_regex = short.is_some();
            match (short, column) {
                (Some(_), Some(_)) => {
                    self.at = start;
                    return Err(self.error(&format!(
                        "{} is a column too; put names into backticks",
                        shown(&whole)
                    )));
                }
                (Some(column), None) | (None, Some(column)) => column,
                (None, None) => {
                    let name = if is_str(last) && !rest.is_empty() { joined(rest) } else { whole };
                    return Err(self.unknown(start, &name, false));
                }
            }
        };
        let takes_text =
            !matches!(name, "isnull" | "isna" | "notnull" | "notna" | "isin" | "between");
        if takes_text && owner.is_empty() && !self.take(&Token::Comma) {
            return Err(self.expected("a comma and a text"));
        }
        let node = match name {
            "isnull" | "isna" => leaf(column, Test::Is(None), negated),
            "notnull" | "notna" => leaf(column, Test::Is(None), !negated),
            "isin" => self.list(column, negated)?,
            "between" => {
                let low = self.operand()?;
                if !self.take(&Token::Comma) {
                    return Err(self.expected("a comma and the upper end"));
                }
                let high = self.operand()?;
                self.between(&Operand::Column(column), &low, &high, negated)?
            }
            _ => {
                let operand = self.operand()?;
                let text = self.text(column, operand)?;
                if name == "contains" && is_regex && !self.take_no_regex() && text.contains(REGEX) {
                    return Err(self.wrong(
                        "in pandas this is a regular expression, which a predicate does not know; \
                         add regex=False if it stands for itself",
                    ));
                }
                let test = match name {
                    "contains" => Test::Contains(text),
                    "endswith" | "ends_with" => Test::EndsWith(text),
                    _ => Test::StartsWith(text),
                };
                leaf(column, test, negated)
            }
        };
        if !self.take(&Token::RParen) {
            return Err(self.expected(&format!("the ) of {name}, which takes nothing more")));
        }
        Ok(node)
    }

    /// `, regex=False`
    fn take_no_regex(&mut self) -> bool {
        let found = self.peek() == Some(&Token::Comma)
            && self.word_at(self.at + 1) == Some("regex")
            && self.tokens.get(self.at + 2).is_some_and(|token| token.token == Token::Eq)
            && self.word_at(self.at + 3).is_some_and(|word| word.eq_ignore_ascii_case("false"));
        self.at += if found { 4 } else { 0 };
        found
    }
}

/// What it means for the columns.
impl Parser<'_> {
    fn condition(&self, item: Item, negated: bool) -> Result<Node> {
        let operand = match item {
            Item::Condition(node) => return Ok(node),
            Item::Operand(Operand::Bool(value)) => return Ok(Node::Fixed(value != negated)),
            Item::Operand(operand) => operand,
        };
        let column = match operand {
            Operand::Column(column) | Operand::Quoted { column: Some(column), .. } => column,
            ref other => {
                return Err(self.wrong(&format!("expected a condition, got {other} alone")));
            }
        };
        if self.kind(column) != Kind::Bool {
            return Err(self.wrong(&format!(
                "expected a condition, got {} alone; compare it with something",
                self.describe(column)
            )));
        }
        Ok(leaf(column, Test::True, negated))
    }

    fn compare(&self, left: &Operand, op: Op, right: &Operand, negated: bool) -> Result<Node> {
        if matches!(left, Operand::Null) || matches!(right, Operand::Null) {
            return Err(
                self.wrong("a comparison with null is never true; write is null, or is not null")
            );
        }
        let (left, right) = (self.side(left.clone(), right)?, self.side(right.clone(), left)?);
        for side in [&left, &right] {
            if let &Operand::Column(column) = side
                && !matches!(op, Op::Eq | Op::Ne)
                && self.schema.field(column).dict_is_ordered() == Some(true)
            {
                return Err(self.wrong(&format!(
                    "{} has categories in an order of their own, by which conditions do not \
                     compare; list those that are meant, as in x in ('a', 'b')",
                    self.describe(column)
                )));
            }
        }
        match (left, right) {
            (Operand::Column(a), Operand::Column(b)) => {
                let comparable = match (self.kind(a), self.kind(b)) {
                    (Kind::Exact { scale: a }, Kind::Exact { scale: b }) => a >= 0 && b >= 0,
                    (Kind::Exact { scale }, Kind::Float) | (Kind::Float, Kind::Exact { scale }) => {
                        scale == 0 && !self.is_decimal(a) && !self.is_decimal(b)
                    }
                    (Kind::Moment { zone: a, .. }, Kind::Moment { zone: b, .. }) => {
                        a.is_none() == b.is_none()
                    }
                    (Kind::Bool, Kind::Bool) => matches!(op, Op::Eq | Op::Ne),
                    (Kind::Float, Kind::Float)
                    | (Kind::Text, Kind::Text)
                    | (Kind::Clock { .. }, Kind::Clock { .. })
                    | (Kind::Uuid, Kind::Uuid) => true,
                    _ => false,
                };
                if !comparable {
                    return Err(self.wrong(&format!(
                        "{} cannot be compared by {} with {}",
                        self.describe(a),
                        written(op),
                        self.describe(b)
                    )));
                }
                Ok(leaf(a, Test::Column(op, b), negated))
            }
            (Operand::Column(column), literal) => {
                self.compare_literal(column, op, literal, negated)
            }
            (literal, Operand::Column(column)) => {
                self.compare_literal(column, op.flipped(), literal, negated)
            }
            (a, b) => Err(self.wrong(&format!("expected a column to compare, got {a} and {b}"))),
        }
    }

    fn compare_literal(
        &self,
        column: usize,
        op: Op,
        literal: Operand,
        negated: bool,
    ) -> Result<Node> {
        let value = self.value(column, literal)?;
        if matches!(op, Op::Eq | Op::Ne) {
            return Ok(equals(column, value, negated != (op == Op::Ne)));
        }
        // Without NaN, > is the opposite of <=, and >= of <.
        let (or_equal, is_opposite) =
            (matches!(op, Op::Le | Op::Gt), matches!(op, Op::Gt | Op::Ge));
        let (test, is_opposite) = match value {
            Value::Float(value) => (Test::Float(op, value), false),
            Value::Text(text) => (Test::Below { text, or_equal }, is_opposite),
            Value::Exact(Floor { whole, exact }) => {
                let below = if exact && !or_equal { whole.checked_sub(1) } else { Some(whole) };
                // Nothing is below the least there is.
                let none = || Test::Among(Values::Exact(vec![]));
                (below.map_or_else(none, Test::AtMost), is_opposite)
            }
            Value::Bool(_) => {
                return Err(self.wrong(&format!(
                    "{} is compared by = and != alone, got {}",
                    self.describe(column),
                    written(op)
                )));
            }
        };
        Ok(leaf(column, test, negated != is_opposite))
    }

    /// Decides whether a word in double quotes is a column or a text.
    fn side(&self, operand: Operand, other: &Operand) -> Result<Operand> {
        let Operand::Quoted { text, column, at } = operand else { return Ok(operand) };
        let (Operand::Column(opposite) | Operand::Quoted { column: Some(opposite), .. }) = *other
        else {
            return match column {
                Some(column) => Ok(Operand::Column(column)),
                None => Err(self.unknown(at, &text, false)),
            };
        };
        let takes_texts = matches!(
            self.kind(opposite),
            Kind::Text | Kind::Moment { .. } | Kind::Clock { .. } | Kind::Uuid
        );
        match column {
            Some(_) if takes_texts => Err(self.wrong(&format!(
                "\"{0}\" is a column in SQL and a text in pandas, and here it could be both; write \
                 `{0}` for the column, or '{0}' for the text",
                shown(&text)
            ))),
            Some(column) => Ok(Operand::Column(column)),
            None if takes_texts => Ok(Operand::Text(text)),
            None => Err(self.unknown(at, &text, false)),
        }
    }

    /// The literal in the column's own terms.
    fn value(&self, column: usize, operand: Operand) -> Result<Value> {
        let data_type = self.schema.field(column).data_type();
        let kind = Kind::of(data_type);
        let operand = match self.side(operand, &Operand::Column(column))? {
            Operand::Text(text) if kind == Kind::Text => return Ok(Value::Text(text)),
            operand => operand,
        };
        let value = match (kind, &operand) {
            (Kind::Other, _) => {
                return Err(self.wrong(&format!(
                    "{} cannot be compared; it can only be asked for nulls (is null)",
                    self.describe(column)
                )));
            }
            (_, Operand::Null) => {
                return Err(self
                    .wrong("a comparison with null is never true; write is null, or is not null"));
            }
            (_, Operand::Column(_)) => {
                return Err(self.wrong("expected a value, got a column"));
            }
            (Kind::Bool, &Operand::Bool(value)) => Value::Bool(value),
            (Kind::Exact { scale }, Operand::Number(number, _)) => {
                Value::Exact(number.floor(scale))
            }
            (Kind::Float, Operand::Number(number, _)) => {
                Value::Float(rounded(number.float, data_type))
            }
            (Kind::Moment { unit, zone }, Operand::Text(text)) => {
                Value::Exact(self.moment(column, text, unit, zone.as_deref())?)
            }
            (Kind::Uuid, Operand::Text(text)) => match literal::uuid(text) {
                Some(digits) => Value::Exact(Floor { whole: super::uuid(digits), exact: true }),
                None => {
                    return Err(self.wrong(&format!(
                        "{} is compared with 32 hexadecimal digits, as in \
                         '123e4567-e89b-12d3-a456-426614174000', got {operand}",
                        self.describe(column)
                    )));
                }
            },
            (Kind::Clock { unit }, Operand::Text(text)) => match literal::clock(text) {
                Some(time) => Value::Exact(Floor::of_ratio(time, unit)),
                None => {
                    return Err(self.wrong(&format!(
                        "{} is compared with times like '12:30' or '12:30:15.5', got {operand}",
                        self.describe(column)
                    )));
                }
            },
            _ => {
                return Err(self.wrong(&format!(
                    "{} cannot be compared with {operand}",
                    self.describe(column)
                )));
            }
        };
        Ok(value)
    }

    fn moment(&self, column: usize, text: &str, unit: i128, zone: Option<&str>) -> Result<Floor> {
        let Some(Moment { nanoseconds, offset }) = Moment::parse(text) else {
            return Err(self.wrong(&format!(
                "{} is compared with dates like '2024-05-01' or '2024-05-01 12:30:15.5', got the text '{}'",
                self.describe(column),
                shown(text)
            )));
        };
        let offset = match (zone, offset) {
            (None, None) => 0,
            (None, Some(_)) => {
                return Err(self.wrong(&format!(
                    "{} has no time zone, got '{}' with one",
                    self.describe(column),
                    shown(text)
                )));
            }
            (Some(_), Some(offset)) => offset,
            (Some(zone), None) => literal::offset(zone).ok_or_else(|| {
                self.wrong(&format!(
                    "{} has a time zone whose offset changes; add one to '{}', as in \
                     '2024-05-01T12:30+02:00' or '2024-05-01T12:30Z'",
                    self.describe(column),
                    shown(text)
                ))
            })?,
        };
        Ok(Floor::of_ratio(nanoseconds - offset, unit))
    }

    fn text(&self, column: usize, operand: Operand) -> Result<String> {
        if self.kind(column) != Kind::Text {
            return Err(self.wrong(&format!("{} holds no texts", self.describe(column))));
        }
        match self.value(column, operand)? {
            Value::Text(text) => Ok(text),
            _ => Err(self.wrong("expected a text")),
        }
    }

    fn column(&self, operand: &Operand) -> Result<usize> {
        match operand {
            &Operand::Column(column) | &Operand::Quoted { column: Some(column), .. } => Ok(column),
            Operand::Quoted { text, column: None, at } => Err(self.unknown(*at, text, false)),
            other => Err(self.wrong(&format!("expected a column, got {other}"))),
        }
    }

    fn is_truth(&self, operand: &Operand) -> bool {
        match *operand {
            Operand::Bool(_) => true,
            Operand::Column(column) | Operand::Quoted { column: Some(column), .. } => {
                self.kind(column) == Kind::Bool
            }
            _ => false,
        }
    }

    fn kind(&self, column: usize) -> Kind {
        Kind::of(self.schema.field(column).data_type())
    }

    fn is_decimal(&self, column: usize) -> bool {
        let mut data_type = self.schema.field(column).data_type();
        while let DataType::Dictionary(_, values) = data_type {
            data_type = values;
        }
        data_type.is_decimal()
    }

    fn find(&self, name: &str) -> Result<Option<usize>> {
        let mut found = (self.schema.fields().iter().enumerate())
            .filter(|(_, field)| field.name() == name)
            .map(|(column, _)| column);
        match (found.next(), found.next()) {
            (_, Some(_)) => Err(self.wrong(&format!("two columns are named {}", shown(name)))),
            (column, None) => Ok(column),
        }
    }

    fn describe(&self, column: usize) -> String {
        let field = self.schema.field(column);
        format!("the column {} ({})", shown(field.name()), shown(&field.data_type().to_string()))
    }
}

/// Tokens, and what to say of them.
impl Parser<'_> {
    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at).map(|token| &token.token)
    }

    fn take(&mut self, token: &Token) -> bool {
        let found = self.peek() == Some(token);
        self.at += usize::from(found);
        found
    }

    fn word_at(&self, at: usize) -> Option<&str> {
        match &self.tokens.get(at)?.token {
            Token::Word(word) if word.quote_style.is_none() => Some(&word.value),
            _ => None,
        }
    }

    fn is_word(&self, word: &str) -> bool {
        self.word_at(self.at).is_some_and(|found| found.eq_ignore_ascii_case(word))
    }

    fn take_word(&mut self, word: &str) -> bool {
        let found = self.is_word(word);
        self.at += usize::from(found);
        found
    }

    fn is_and(&self) -> bool {
        self.is_word("and") || self.peek() == Some(&Token::Ampersand)
    }

    fn is_or(&self) -> bool {
        self.is_word("or") || self.peek() == Some(&Token::Pipe)
    }

    fn operator(&self) -> Option<Op> {
        Some(match self.peek()? {
            Token::Eq | Token::DoubleEq => Op::Eq,
            Token::Neq => Op::Ne,
            Token::Lt => Op::Lt,
            Token::LtEq => Op::Le,
            Token::Gt => Op::Gt,
            Token::GtEq => Op::Ge,
            _ => return None,
        })
    }

    /// Whether the next token is one that may come after a column or a value.
    fn is_after_operand(&self) -> bool {
        let verbs = ["and", "or", "not", "in", "is", "between", "like", "ilike", "escape"];
        match self.peek() {
            None
            | Some(
                Token::RParen
                | Token::RBracket
                | Token::Comma
                | Token::Period
                | Token::Ampersand
                | Token::Pipe,
            ) => true,
            Some(_) => self.operator().is_some() || verbs.iter().any(|verb| self.is_word(verb)),
        }
    }

    fn error(&self, message: &str) -> Error {
        fail(self.location(self.at), message)
    }

    fn wrong(&self, message: &str) -> Error {
        fail(self.location(self.mark), message)
    }

    fn expected(&self, what: &str) -> Error {
        let got = self.peek().map_or("the end".to_owned(), |token| shown(&token.to_string()));
        self.error(&format!("expected {what}, got {got}"))
    }

    fn location(&self, at: usize) -> Option<Location> {
        self.tokens.get(at).map(|token| token.span.start)
    }

    /// A name that no column has. Bare words may have been meant as something else.
    fn unknown(&self, at: usize, name: &str, is_bare: bool) -> Error {
        let names = || self.schema.fields().iter().map(|field| field.name());
        let distance = |other: &str| {
            let longest = name.chars().count().max(other.chars().count());
            let short = longest < 100; // its time grows with the square
            let lower = || strsim::osa_distance(&name.to_lowercase(), &other.to_lowercase());
            if short { Some(lower()).filter(|&edits| edits <= longest / 3) } else { None }
        };
        let near = names().filter_map(|other| Some((distance(other)?, other)));
        let is_text = matches!(self.peek(), Some(Token::SingleQuotedString(_)));
        let advice = match near.min_by_key(|(edits, _)| *edits) {
            Some((_, nearest)) => format!("did you mean {}?", shown(nearest)),
            None if is_bare && is_text => "dates are written as texts alone;".to_owned(),
            None if is_bare && !self.is_after_operand() => {
                "a predicate is a condition on columns and has no other parts of SQL;".to_owned()
            }
            None if is_bare && self.operator().is_none() => {
                "a text stands in single quotes;".to_owned()
            }
            None => String::new(), // bare on a left side, or quoted
        };
        let mut listed: Vec<String> = names().take(SHOWN_NAMES).map(|name| shown(name)).collect();
        if names().count() > SHOWN_NAMES {
            listed.push(format!("and {} more", names().count() - SHOWN_NAMES));
        }
        let space = if advice.is_empty() { "" } else { " " };
        let columns = if listed.is_empty() { "none".to_owned() } else { listed.join(", ") };
        let message = format!(
            "there is no column {};{space}{advice} the columns are: {columns}",
            shown(name)
        );
        fail(self.location(at), message)
    }
}

fn fail(location: Option<Location>, message: impl Display) -> Error {
    let place = match location {
        None => "at its end".to_owned(),
        Some(Location { line: 1, column }) => format!("at character {column}"),
        Some(Location { line, column }) => format!("at line {line}, character {column}"),
    };
    Error::invalid(format!("cannot read the predicate {place}: {message}"))
}

/// The text, cut where it is long, without what would break a line.
fn shown(text: &str) -> String {
    let clean = |char: char| if char.is_control() { '\u{fffd}' } else { char };
    let mut short: String = text.chars().take(SHOWN_CHARS).map(clean).collect();
    if short.len() < text.len() && text.chars().nth(SHOWN_CHARS).is_some() {
        short.push('…');
    }
    short
}

fn written(op: Op) -> &'static str {
    match op {
        Op::Eq => "=",
        Op::Ne => "!=",
        Op::Lt => "<",
        Op::Le => "<=",
        Op::Gt => ">",
        Op::Ge => ">=",
    }
}

fn joined(path: &[Word]) -> String {
    path.iter().map(|word| &*word.value).collect::<Vec<_>>().join(".")
}

/// The literal as the column's type has it, unless that would be an infinity.
fn rounded(value: f64, data_type: &DataType) -> f64 {
    let rounded = match data_type {
        DataType::Dictionary(_, values) => return rounded(value, values),
        DataType::Float16 => half::f16::from_f64(value).to_f64(),
        DataType::Float32 => f64::from(value as f32),
        _ => value,
    };
    if rounded.is_finite() { rounded } else { value }
}

fn leaf(column: usize, test: Test, negated: bool) -> Node {
    Node::Leaf(Leaf { column, test, negated })
}

fn equals(column: usize, value: Value, negated: bool) -> Node {
    let mut values = match value {
        Value::Bool(value) => return leaf(column, Test::True, negated == value),
        Value::Exact(_) => Values::Exact(vec![]),
        Value::Float(_) => Values::Float(vec![]),
        Value::Text(_) => Values::Text(vec![]),
    };
    values.push(value);
    leaf(column, Test::Among(values), negated)
}

/// One of the nodes must pass, or all. Equalities with one column become one set of values, so that a
/// chain of thousands costs what a list does.
fn group(nodes: Vec<Node>, any: bool) -> Node {
    let mut sets: HashMap<usize, usize, RandomState> = HashMap::default();
    let mut kept: Vec<Node> = vec![];
    for node in nodes {
        match node {
            Node::Leaf(Leaf { column, test: Test::Among(values), negated }) if negated != any => {
                let place = *sets.entry(column).or_insert(kept.len());
                match kept.get_mut(place) {
                    Some(Node::Leaf(Leaf { test: Test::Among(known), .. })) => known.extend(values),
                    _ => kept.push(leaf(column, Test::Among(values), negated)),
                }
            }
            node => kept.push(node),
        }
    }
    for place in sets.into_values() {
        if let Node::Leaf(Leaf { test: Test::Among(values), .. }) = &mut kept[place] {
            values.sort();
        }
    }
    match (kept.len(), any) {
        (1, _) => kept.swap_remove(0),
        (_, true) => Node::Any(kept),
        (_, false) => Node::All(kept),
    }
}

impl Values {
    fn push(&mut self, value: Value) {
        match (self, value) {
            (_, Value::Exact(Floor { exact: false, .. })) => {} // no number of the column
            (Self::Exact(known), Value::Exact(Floor { whole, .. })) => known.push(whole),
            (Self::Float(known), Value::Float(value)) => known.push(value + 0.0), // not -0.0
            (Self::Text(known), Value::Text(text)) => known.push(text),
            _ => unreachable!("a column has one type"),
        }
    }

    fn extend(&mut self, more: Self) {
        match (self, more) {
            (Self::Exact(known), Self::Exact(more)) => known.extend(more),
            (Self::Float(known), Self::Float(more)) => known.extend(more),
            (Self::Text(known), Self::Text(more)) => known.extend(more),
            _ => unreachable!("a column has one type"),
        }
    }

    fn sort(&mut self) {
        match self {
            Self::Exact(values) => {
                values.sort_unstable();
                values.dedup();
            }
            Self::Float(values) => {
                values.sort_unstable_by(f64::total_cmp);
                values.dedup();
            }
            Self::Text(_) => {} // many are hashed
        }
    }
}
