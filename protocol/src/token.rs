//! Bearer tokens: `jp_KIND_CELL_SECRET`, readable for people and secret scanners, opaque otherwise.

/// Who a token speaks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TokenKind {
    /// `jp_admin_`: the operator.
    Admin,
    /// `jp_key_`: one tenant.
    Tenant,
    /// `jp_worker_`: a fleet of workers.
    Worker,
}

impl TokenKind {
    /// What a token of this kind begins with.
    pub fn prefix(self) -> &'static str {
        match self {
            Self::Admin => "jp_admin_",
            Self::Tenant => "jp_key_",
            Self::Worker => "jp_worker_",
        }
    }
}

/// A token in clear. `Debug` does not show the secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    text: String,
    kind: TokenKind,
}

impl Token {
    /// Makes a token from 256 random bits, for a cell named with letters, digits and `-`.
    pub fn mint(kind: TokenKind, cell: &str, secret: [u8; 32]) -> Self {
        let secret: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
        Self { text: format!("{}{cell}_{secret}", kind.prefix()), kind }
    }

    /// Reads a token; `None` if it is not shaped like one.
    pub fn parse(text: &str) -> Option<Self> {
        let kind = [TokenKind::Admin, TokenKind::Tenant, TokenKind::Worker]
            .into_iter()
            .find(|kind| text.starts_with(kind.prefix()))?;
        let (cell, secret) = text[kind.prefix().len()..].rsplit_once('_')?;
        let secret_ok =
            secret.len() == 64 && secret.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        (Self::names_cell(cell) && secret_ok).then(|| Self { text: text.to_owned(), kind })
    }

    /// Whether a cell may be called so: a token of another name could not be read back.
    pub fn names_cell(name: &str) -> bool {
        !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    }

    /// Who it speaks for.
    pub fn kind(&self) -> TokenKind {
        self.kind
    }

    /// The cell it belongs to: one stack of functions, database and workers.
    pub fn cell(&self) -> &str {
        self.text[self.kind.prefix().len()..].rsplit_once('_').map_or("", |(cell, _)| cell)
    }

    /// The token in clear, for the `Authorization` header and for showing it once.
    pub fn reveal(&self) -> &str {
        &self.text
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}{}_…", self.kind.prefix(), self.cell())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minted_token_reads_back_and_hides_its_secret() {
        let token = Token::mint(TokenKind::Worker, "eu-1", [0xab; 32]);
        let read = Token::parse(token.reveal()).unwrap();
        assert_eq!((read.kind(), read.cell()), (TokenKind::Worker, "eu-1"));
        assert_eq!(format!("{read:?}"), "jp_worker_eu-1_…");
    }

    #[test]
    fn what_is_not_a_token_is_refused() {
        for text in
            ["", "jp_key_", "jp_key_local_short", "jp_root_local_00", &format!("jp_key__{}", "0".repeat(64))]
        {
            assert!(Token::parse(text).is_none(), "{text}");
        }
    }
}
