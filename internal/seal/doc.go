// Package seal hides secret bytes from whoever has a copy of the log, of a
// snapshot or of a backup, but none of the keys.
//
// A [Key] seals records: AES-256-GCM under a fresh nonce, bound to the record's
// name. Keys have numbers, so that a new one can take over while records sealed
// by an older one stay readable. A key is kept wrapped to the public key of
// each who may have it ([Wrap], [Unwrap]). An archive ([NewWriter], [NewReader]) is a whole file under a
// passphrase, in chunks, so that a file that was cut or changed is found out.
//
// Invariants: no secret appears in an error; what was not written by this
// package, or was changed since, is refused and never half opened.
package seal
