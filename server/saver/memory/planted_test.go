//go:build planted

package memory

import (
	"testing"

	"carillon/server/saver/savertest"
)

func TestPlanted_EachBugOfTasksIsFound(t *testing.T) { savertest.RunPlanted(t, newSubject) }
