//! What the refusal of a token comes to.

use http::StatusCode;

use super::{Breaker, OriginId, breaker::Permission};
use crate::{
    cache::{Generation, TokensInUse},
    telemetry::{Happening, Suppressed},
};

/// A token was refused: which, by whom, and in a response with which status.
#[derive(Clone, Copy)]
pub(crate) struct Refusal {
    pub(crate) generation: Generation,
    pub(crate) origin: OriginId,
    pub(crate) status: StatusCode,
}

/// What came of a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Consequence {
    /// It took the token out of use.
    OutOfUse,
    /// The token was out of use already: another is fetched or there anyway.
    Late,
    /// The token stays in use, as new ones have not helped of late.
    NoHelp,
}

impl Refusal {
    /// Takes the token out of use, unless the breaker says that this would not help.
    pub(super) fn heed(self, tokens: &TokensInUse, breaker: &Breaker) -> Consequence {
        self.tell(tokens);
        let consequence = self.ask(tokens, breaker);
        let generation = self.generation.get();
        let suppressed = |reason| {
            tokens.telemetry().tell(Happening::Suppressed { generation, reason });
        };
        match consequence {
            Consequence::OutOfUse => {}
            Consequence::Late => suppressed(Suppressed::Late),
            Consequence::NoHelp => suppressed(Suppressed::NoHelp),
        }
        if consequence != Consequence::NoHelp {
            tokens.invalidate(self.generation);
        }
        consequence
    }

    /// Makes it known, which is all there is to do about the refusal of a retry.
    pub(super) fn tell(self, tokens: &TokensInUse) {
        let (generation, status) = (self.generation.get(), self.status.as_u16());
        tokens.telemetry().tell(Happening::Refused { generation, status });
    }

    fn ask(self, tokens: &TokensInUse, breaker: &Breaker) -> Consequence {
        if !tokens.is_current(self.generation) {
            return Consequence::Late;
        }
        match breaker.permits(self.origin, self.generation) {
            Permission::Given => Consequence::OutOfUse,
            Permission::GivenBefore => Consequence::Late,
            Permission::Denied => Consequence::NoHelp,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{cache::TokenCache, presentation::Origins, token::AccessToken};

    #[tokio::test]
    async fn of_two_refusals_in_the_same_moment_neither_is_left_with_the_refused_token() {
        let origins = Origins::of_inner_service();
        let breaker = Breaker::new(origins.count());
        let tokens = TokenCache::new(|| async { AccessToken::bearer("T0KEN") });
        let generation = tokens.token().await.unwrap().generation();
        let origin = origins.find(&"/".parse().unwrap()).unwrap();
        let refusal = Refusal { generation, origin, status: StatusCode::UNAUTHORIZED };

        // The first has got as far as to have its permission when the second comes.
        assert_eq!(breaker.permits(origin, generation), Permission::Given);
        assert_eq!(refusal.heed(&tokens.in_use(), &breaker), Consequence::Late);
        assert!(tokens.current().is_none());
    }
}
