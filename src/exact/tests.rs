//! The certificate and the three ways against a plain float64 twin.
