// Package nextversion makes the version after this one, as far as others notice it: with the build tag `nextversion` every number of a
// version is one higher, and whatever may grow from one version to the next has grown by something that this version does not
// know. No release is built with it.
//
// # Place in the flow
//
// Codecs of frames, of what nodes say to each other and of what is stored ask it. Tests run binaries of both builds side by side, as a
// deploy does: what one of them may not pass over, or may not add, is found there.
//
// # Invariants
//
//   - Without the tag every constant is zero or empty, and the compiler removes what stands around it.
//   - Who makes a real next version adds to the same places, under the same numbers; docs/operations/cluster.md says what may be added.
package nextversion
