//go:build unix

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// The walk of docs/tasks.md, as it stands there.
func TestTasks_TheWalkOfTheDocumentation(t *testing.T) {
	page, err := os.ReadFile("../../../docs/tasks.md")
	if err != nil {
		t.Fatal(err)
	}
	_, walk, _ := strings.Cut(string(page), "\n## Five minutes\n")
	walk, _, _ = strings.Cut(walk, "\n## ")
	script := "set -euo pipefail\n"
	for _, m := range regexp.MustCompile("(?s)```sh\n(.*?)```").FindAllStringSubmatch(walk, -1) {
		script += m[1]
	}
	// Whoever types it takes longer than the test group.
	const look = "./bin/carillon tasks show \"$task\"\n"
	script = strings.Replace(script, look, "until "+look[:len(look)-1]+" > shown && grep -q 'paused (test_group)' shown; do :; done; cat shown\n", 1)
	data, dir := devGateway(t), t.TempDir()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{
		os.Symlink(data, filepath.Join(dir, "data")), os.Mkdir(filepath.Join(dir, "bin"), 0o700),
		os.WriteFile(filepath.Join(dir, "bin", "carillon"), []byte("#!/bin/sh\n"+beCarillon+"=1 exec "+self+" \"$@\"\n"), 0o700),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("bash", "-c", script)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v:\n%s", err, out)
	}
	for _, want := range []string{
		"made list ", `{"text":"Hello there"}`, "paused (test_group)", "goes 1 users a second", "completed: written for 3 of 3 users, 1 had it in the test",
		"is recalling (Wrong price.)", "which is awaiting_approval", "completed: ",
	} {
		_, rest, found := strings.Cut(string(out), want)
		if !found {
			t.Fatalf("%q is not there, or not in this order, in\n%s", want, out)
		}
		out = []byte(rest)
	}
}
