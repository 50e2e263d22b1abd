package center

import (
	"carillon/server/center/strictjson"
	"carillon/server/push"
	"carillon/server/saver"
)

const (
	inChangeAdd = iota
	inChangeRemove
)

const (
	inItemUser = iota
	inItemDevice
	inItemSet
	inItemAdd
	inItemRemove
)

var (
	tagSetShape    = strictjson.NewShape(1, "tags")
	tagChangeShape = strictjson.NewShape(0, "add", "remove")
	tagBatchShape  = strictjson.NewShape(1, "changes")
	tagItemShape   = strictjson.NewShape(1, "user", "device", "set", "add", "remove")
	tagRule        = strictjson.Rule{Least: 1, Most: push.MaxTag, NoControl: true}
)

// parseTagSet reads TagSet.
func parseTagSet(body []byte) (c saver.TagChange, err error) {
	c.Replace = true
	err = parseBody(body, tagSetShape, func(r *strictjson.Reader, _ int) { c.Add = readTags(r) }, nil)
	return c, err
}

// parseTagChange reads TagChange.
func parseTagChange(body []byte) (c saver.TagChange, err error) {
	err = parseBody(body, tagChangeShape, func(r *strictjson.Reader, i int) {
		switch i {
		case inChangeAdd:
			c.Add = readTags(r)
		case inChangeRemove:
			c.Remove = readTags(r)
		}
	}, notEmpty)
	return c, err
}

// tagItem is one change of a batch, or what is wrong with it.
type tagItem struct {
	change saver.TagChange
	err    error
}

// parseTagBatch reads TagBatchRequest. The error is one of the batch as a whole.
func parseTagBatch(body []byte, most int) (items []tagItem, err error) {
	err = parseBody(body, tagBatchShape, func(r *strictjson.Reader, _ int) {
		r.Array(1, most, func(int) { items = append(items, readTagItem(r)) })
	}, nil)
	return items, err
}

// readTagItem reads one change, which is judged by itself.
func readTagItem(r *strictjson.Reader) (item tagItem) {
	mark := r.Mark()
	c := &item.change
	seen, ok := r.Object(tagItemShape, func(i int) {
		switch i {
		case inItemUser:
			s, _ := r.Text(userRule)
			c.User = push.UserID(s)
		case inItemDevice:
			s, _ := r.Text(deviceRule)
			c.Device = push.DeviceID(s)
		case inItemSet:
			c.Replace, c.Add = true, append(c.Add, readTags(r)...)
		case inItemAdd:
			c.Add = append(c.Add, readTags(r)...)
		case inItemRemove:
			c.Remove = readTags(r)
		}
	})
	if ok {
		set, change := seen.Has(inItemSet), seen.Has(inItemAdd) || seen.Has(inItemRemove)
		switch {
		case set && change:
			r.Note(strictjson.NotAllowed, "the tags as they are to be, or what to add and remove, not both", tagItemShape.Name(inItemSet))
		case !set && !change:
			r.Note(strictjson.TooFew, "nothing is to be changed")
		}
	}
	if errs := r.Since(mark); errs != nil {
		item.err = &invalid{errs}
	}
	return item
}

func readTags(r *strictjson.Reader) (tags []push.Tag) {
	r.Array(0, push.MaxTags, func(int) {
		s, _ := r.Text(tagRule)
		tags = append(tags, push.Tag(s))
	})
	return tags
}
