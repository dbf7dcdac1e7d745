//! parctl: what people ask control.
