package main

import (
	"runtime"
	"runtime/debug"

	"carillon/server/wire"
)

type versionCmd struct{}

// Help is shown under --help.
func (versionCmd) Help() string {
	return `Example:

    carillon version`
}

// Run executes the command.
func (versionCmd) Run(a *app) error {
	a.print("carillon %s, %s %s/%s, wire schema %d", version(), runtime.Version(), runtime.GOOS, runtime.GOARCH,
		wire.Version)
	return nil
}

// version returns what the build recorded: a release, or a commit and its day.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	var commit, day, changed string
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			commit = s.Value[:min(len(s.Value), 12)]
		case "vcs.time":
			day = s.Value[:min(len(s.Value), len("2006-01-02"))]
		case "vcs.modified":
			if s.Value == "true" {
				changed = ", changed"
			}
		}
	}
	if commit == "" {
		return info.Main.Version
	}
	return commit + " (" + day + changed + ")"
}
