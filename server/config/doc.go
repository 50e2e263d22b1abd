// Package config is the configuration of a Carillon server: one typed [Config] with defaults, put together from a YAML
// file, environment variables and command-line flags. A flag wins over the environment, the environment over the file,
// the file over the default.
//
// # Place in the flow
//
// The command line calls [Load] and hands the result to the gateway as plain values. Nothing else reads the environment.
//
// # Invariants
//
//   - Every key stands once, in the table of keys.go: its name in the file, from which the names of its variable and
//     its flag follow, its default, how it is read and written, and what it is for.
//   - What is not known is refused, in the file and among the CARILLON_ variables: a typing error never means the
//     default.
//   - All that is wrong is told at once, each with the place it came from and what to write instead.
//   - Secrets are of type [Secret], which never prints, and have no flag, since command lines are visible to everybody on
//     the machine.
package config
