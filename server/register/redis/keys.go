package redis

import (
	"strings"

	"carillon/server/push"
	"carillon/server/redisdb"
)

// leaseTag is the tag of what concerns all rooms.
const leaseTag redisdb.Tag = "rooms"

var leaseKey = leaseTag.Key("r", "")

func numbersKey(p push.ProductID) string { return leaseTag.Key("n", string(p)) }

func presenceKey(t redisdb.Tag) string { return t.Key("p", "") }

func ordersKey(t redisdb.Tag, at place) string { return t.Key("o", at.name()) }

// roomTag is the tag of what concerns one room. The at sign keeps it apart from the tags of products.
func roomTag(r push.RoomID) redisdb.Tag { return redisdb.Tag("@" + tagEscaper.Replace(string(r))) }

var tagEscaper = strings.NewReplacer("%", "%25", "{", "%7b", "}", "%7d")

func mailKey(at place) string { return roomTag(at.room).Key("m", at.name()) }
