//go:build planted

package savertest

import (
	"slices"
	"testing"

	"carillon/server/planted"
)

// RunPlanted plants each bug of tasks, and fails where no trial finds it.
func RunPlanted(t *testing.T, newSubject func(t *testing.T) *Subject) {
	for _, bug := range planted.OfTasks() {
		t.Run(string(bug), func(t *testing.T) {
			i := slices.IndexFunc(TaskTrials(), func(tr Trial) bool { return slices.Contains(tr.Bugs, bug) })
			if i < 0 {
				t.Fatal("the bug has no trial")
			}
			if err := planted.Choose(bug); err != nil {
				t.Fatal(err)
			}
			defer func() { _ = planted.Choose(planted.None) }()
			found := TaskTrials()[i].Run(t, newSubject(t))
			if len(found) == 0 {
				t.Error("not found")
			}
			t.Logf("found when %s: %q", TaskTrials()[i].Name, found)
		})
	}
}
