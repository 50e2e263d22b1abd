package task

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestMoves_AreThoseOfTheDocumentation holds docs/tasks.md against the tables of states and moves.
func TestMoves_AreThoseOfTheDocumentation(t *testing.T) {
	page, err := os.ReadFile("../../docs/tasks.md")
	if err != nil {
		t.Fatal(err)
	}
	var moves []Step
	for _, m := range regexp.MustCompile("(?m)^\\| `([a-z_]+)` \\| `([a-z_]+)` \\| `([a-z_]+)` \\|").FindAllStringSubmatch(string(page), -1) {
		moves = append(moves, Step{Move: Move(m[2]), From: State(m[1]), To: State(m[3])})
	}
	for _, m := range Moves {
		if !slices.Contains(moves, m) {
			t.Errorf("docs/tasks.md lacks the move %s from %s to %s", m.Move, m.From, m.To)
		}
	}
	for _, m := range moves {
		if !slices.Contains(Moves, m) {
			t.Errorf("docs/tasks.md has the move %s from %s to %s, which is not allowed", m.Move, m.From, m.To)
		}
	}
	if len(moves) != len(Moves) {
		t.Errorf("docs/tasks.md has %d moves, there are %d", len(moves), len(Moves))
	}
	_, states, _ := strings.Cut(string(page), "| state | what it means |")
	states, _, _ = strings.Cut(states, "\n\n")
	var named []State
	for _, m := range regexp.MustCompile("(?m)^\\| `([a-z_]+)` \\| ").FindAllStringSubmatch(states, -1) {
		named = append(named, State(m[1]))
	}
	want := slices.Clone(States())
	slices.Sort(want)
	slices.Sort(named)
	if !slices.Equal(named, want) {
		t.Errorf("docs/tasks.md explains the states %q, there are %q", named, want)
	}
}
