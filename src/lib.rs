//! dmpool: owning device-mapper thin pools.
